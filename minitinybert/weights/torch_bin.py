"""PyTorch's .bin files without PyTorch, and without running what the pickle in them says.

A state dict is a pickle of names and tensor records; a record points into a storage (a flat array)
by offset, shape and strides. Two containers:

    zip (PyTorch 1.6 and later)   NAME/data.pkl, NAME/byteorder, and a storage's bytes as NAME/data/KEY
    legacy                        pickles one after the other: magic number, protocol, system, state dict, keys of the storages;
                                  then each storage: its length in elements as int64, its bytes

The unpickler admits the operations and the few names that a state dict needs, and none of them does
more than put its arguments in a record. What a pickle made is neither printed nor hashed nor
compared, but for strings and numbers: a tuple in a tuple in a tuple … would end the process.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np

from ..errors import InputError
from ..files import AGAIN, open_zip, read_member
from .files import not_weights, widened

_MAGIC = 0x1950A86A20F9469CFC6C
_STATE_DICT = "save the model's state dict by itself: torch.save(model.state_dict(), …)"
_FLOATS = {"DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "bfloat16"}
_INTEGERS = {"LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1"}
_PICKLE_BYTES = 2 << 20  # of all that is not tensors; BERT-large's takes 60 kB
_ARGUMENTS = 8  # of a call in a pickle; PyTorch writes seven
_DIMENSIONS = 32  # NumPy's own limit before 2.0
_EXPANDED = 1 << 24  # elements that a tensor may have beyond those of its storage
_DTYPES = _FLOATS | _INTEGERS | {"BoolStorage": "?"}


class _Storage(NamedTuple):
    key: str
    dtype: str
    numel: int
    start: int = 0  # of a legacy view into a storage

    @property
    def numpy_dtype(self) -> np.dtype:
        return np.dtype("<u2" if self.dtype == "bfloat16" else self.dtype)

    @property
    def nbytes(self) -> int:
        return self.numel * self.numpy_dtype.itemsize


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int  # this and the strides count elements
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict by name, read-only; bfloat16 becomes float32, all else keeps its
    dtype.

    InputError where the file is no state dict, is cut short or damaged (naming the tensor where
    that can be known), or its pickle names anything but tensors.
    """
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        return _read_zip(path) if start == b"PK\x03\x04" else _read_legacy(path, file)


# ------------------------------------------------------------------------------------------------ the two containers


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    try:
        archive = open_zip(path)
    except InputError:
        raise InputError(f"{path}: cut short or damaged{_first_missing(path)}; {AGAIN}") from None
    with archive:
        names = set(archive.namelist())
        prefix = next((name[: -len("data.pkl")] for name in names if re.fullmatch(r"[^/]+/data\.pkl", name)), None)
        if prefix is None:
            raise InputError(f"{path}: a zip archive, but not PyTorch's (it has no data.pkl); {_STATE_DICT}")
        if prefix + "byteorder" in names and read_member(archive, prefix + "byteorder", 16, stored=True) != b"little":
            raise InputError(f"{path}: written on a big-endian machine; save it on a little-endian one")
        tensors = _state_dict(_Unpickler(io.BytesIO(read_member(archive, prefix + "data.pkl", _PICKLE_BYTES, stored=True)), path))
        return _arrays(tensors, lambda storage: _stored(archive, f"{prefix}data/{storage.key}", storage.nbytes), path)


def _stored(archive: zipfile.ZipFile, name: str, nbytes: int) -> bytes:
    data = read_member(archive, name, Path(archive.filename or "").stat().st_size, stored=True)
    if len(data) != nbytes:
        raise InputError(f"{archive.filename}: {name} has {len(data)} bytes, {nbytes} are needed; {AGAIN}")
    return data


def _first_missing(path: Path) -> str:
    """Of a zip file without its end: "; bytes of tensor …", where what is left of the front still
    tells which is the first."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        places = {}  # where each member's bytes begin
        for match in re.finditer(rb"PK\x03\x04.{22}(..)(..)", data, re.DOTALL):
            length, extra = (int.from_bytes(part, "little") for part in match.groups())
            places[data[match.end() : match.end() + min(length, 256)].partition(b"/")[2]] = match.end() + length + extra
        try:
            file.seek(places.get(b"data.pkl", len(data)))
            tensors = _state_dict(_Unpickler(io.BytesIO(file.read(_PICKLE_BYTES)), path))
        except InputError:
            return ""
        for name, tensor in tensors.items():
            if places.get(f"data/{tensor.storage.key}".encode(), len(data)) + tensor.storage.nbytes > len(data):
                return f"; bytes of tensor {name} are missing"
    return ""


def _read_legacy(path: Path, file: BinaryIO) -> dict[str, np.ndarray]:
    start = io.BytesIO(file.read(_PICKLE_BYTES))  # its pickles; what they claim to hold cannot be more than this
    try:
        known = _is_number(_Unpickler(start, path).result(), _MAGIC)
    except InputError:
        known = False
    if not known:
        raise not_weights(path, "a PyTorch file")
    _Unpickler(start, path).result()  # the protocol's number
    system = _Unpickler(start, path).result()
    if not (isinstance(system, dict) and system.get("little_endian") is True):
        raise InputError(f"{path}: written on a big-endian machine; save it on a little-endian one")
    unpickler = _Unpickler(start, path)
    tensors = _state_dict(unpickler)
    places = _legacy_places(start, file, path, unpickler.itemsize)
    size = path.stat().st_size

    def load(storage: _Storage) -> bytes | np.ndarray:
        begin, numel = places.get(storage.key, (size, 0))
        if begin + storage.nbytes > size or storage.numel != numel:
            raise InputError(f"{path}: cut short; bytes of storage {storage.key} are missing; {AGAIN}")
        return np.memmap(path, np.uint8, "r", begin, (storage.nbytes,)).view(np.ndarray) if storage.nbytes else b""

    return _arrays(tensors, load, path)


def _legacy_places(start: BinaryIO, file: BinaryIO, path: Path, itemsize: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Where each storage's bytes begin, and its number of elements, as far as the file goes."""
    places: dict[str, tuple[int, int]] = {}
    size = path.stat().st_size
    try:
        keys = _Unpickler(start, path).result()
    except InputError:  # cut short here; the caller names the tensor that is missing
        return places
    file.seek(start.tell())
    for key in keys if isinstance(keys, list) else ():
        length = file.read(8)
        if len(length) < 8 or not isinstance(key, str) or key not in itemsize:
            break
        numel = int.from_bytes(length, "little")
        places[key] = (file.tell(), numel)
        file.seek(min(file.tell() + numel * itemsize[key], size))
    return places


# ------------------------------------------------------------------------------------------------ the pickle


_OPERATIONS = (
    "PROTO FRAME STOP MARK POP POP_MARK EMPTY_DICT EMPTY_LIST EMPTY_TUPLE DICT LIST TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS "
    "SETITEM SETITEMS NONE NEWTRUE NEWFALSE INT LONG LONG1 LONG4 BININT BININT1 BININT2 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET "
    "LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID"
)
_CODES = [getattr(pickle, name)[0] for name in _OPERATIONS.split()]


# The unpickler written in Python: the one in C sizes its memo by any number that a damaged file
# holds, and takes all memory.
class _Unpickler(pickle._Unpickler):
    stack: list[Any]  # as the base class has them, which typeshed leaves out
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    # An operation that is not here ends in KeyError. Sets are not: they hash what they are given.
    dispatch: ClassVar[dict[int, Any]] = {code: pickle._Unpickler.dispatch[code] for code in _CODES}

    def __init__(self, file: BinaryIO, path: Path):
        super().__init__(file)
        self.path = path
        self.itemsize: dict[str, int] = {}  # of each storage met, by key

    def result(self) -> Any:
        """load(), with InputError for all that can go wrong."""
        try:
            return self.load()
        except InputError:
            raise
        except Exception as error:  # a damaged pickle may end in any error
            problem = f"cut short or damaged ({type(error).__name__} in its pickle)"
            raise InputError(f"{self.path}: {problem}; {AGAIN}") from None

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(_put({}, zip(items[::2], items[1::2], strict=True)))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _put(self.stack[-1], [(key, value)])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        _put(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple) or len(arguments) > _ARGUMENTS:
            raise ValueError("the arguments of a call")
        self.append(function(*arguments))

    def load_build(self) -> None:
        self.stack.pop()  # the attributes of a state dict (its _metadata) are not needed, and nothing gets any

    dispatch |= {
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return partial(_ordered_dict)
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch._utils" and name in _REBUILD:
            return partial(_REBUILD[name])
        raise InputError(f"{self.path}: its pickle names {module}.{name}, which is not read, for it could run code; {_STATE_DICT}")

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) > _ARGUMENTS:
            raise ValueError("an unknown storage")
        kind, dtype, key, _, numel, *view = pid
        if not all(isinstance(part, str) for part in (kind, dtype, key)) or kind != "storage" or dtype not in _DTYPES.values():
            raise ValueError("an unknown storage")
        if not _is_size(numel):
            raise ValueError("a storage of no size")
        start = 0
        if view and view[0] is not None:  # legacy: (the view's own key, start, length)
            _, start, length = view[0]
            if not _is_size(start) or not _is_size(length) or start + length > numel:
                raise ValueError("a view beyond its storage")
        storage = _Storage(key, dtype, numel, start)
        self.itemsize[key] = storage.numpy_dtype.itemsize
        return storage


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _is_number(value: Any, number: int) -> bool:
    return type(value) is int and value == number


def _put(target: Any, items: Iterable[tuple[Any, Any]]) -> Any:
    """The dictionary `target` with the pairs, whose keys are safe to hash; ValueError for others."""
    if not isinstance(target, dict):
        raise ValueError("no dictionary")
    for key, value in items:
        if type(key) not in (str, int):
            raise ValueError("a key that is neither text nor a number")
        target[key] = value
    return target


def _ordered_dict(pairs: Any = ()) -> Any:
    """`pairs`: as Python 2 writes them, a list of lists [key, value]. The list is used up: a short
    pickle that names one list again and again does not ask for long work."""
    made = _put(OrderedDict(), ((key, value) for key, value in pairs))
    if isinstance(pairs, list):
        pairs.clear()
    elif pairs:
        raise ValueError("pairs of another form")
    return made


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage) or not all(isinstance(sizes, (tuple, list)) for sizes in (shape, strides)):
        raise ValueError("a tensor record of another form")
    if not len(shape) == len(strides) <= _DIMENSIONS or not all(map(_is_size, (offset, *shape, *strides))):
        raise ValueError("a tensor record of another form")
    return _Tensor(storage, storage.start + offset, tuple(shape), tuple(strides))


_REBUILD: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": _rebuild_tensor,
    "_rebuild_tensor_v2": _rebuild_tensor,
    "_rebuild_parameter": lambda tensor, *_: tensor,
}


def _state_dict(unpickler: _Unpickler) -> dict[str, _Tensor]:
    state = unpickler.result()
    entries = list(state.items()) if isinstance(state, dict) else []
    tensors = {name: value for name, value in entries if isinstance(name, str) and isinstance(value, _Tensor)}
    if not tensors:
        names = [name[:40] for name, _ in entries[:5] if isinstance(name, str)]
        found = f"only {', '.join(names) or 'numbers'}" if entries else f"a {type(state).__name__}"
        raise InputError(f"{unpickler.path}: no tensors by name in it, {found}; {_STATE_DICT}")
    return tensors


# ------------------------------------------------------------------------------------------------ records to arrays


def _arrays(tensors: Mapping[str, _Tensor], load: Callable[[_Storage], bytes | np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Each record as a view of its storage, which tensors that share it share here too."""
    storages: dict[tuple[str, str], np.ndarray] = {}
    arrays = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        try:
            if (storage.key, storage.dtype) not in storages:
                flat = np.frombuffer(load(storage), storage.numpy_dtype)
                storages[storage.key, storage.dtype] = widened(flat) if storage.dtype == "bfloat16" else flat
        except InputError as error:
            raise InputError(f"{error} (tensor {name})") from None
        arrays[name] = _strided(storages[storage.key, storage.dtype], tensor, name, path)
    return arrays


def _strided(flat: np.ndarray, tensor: _Tensor, name: str, path: Path) -> np.ndarray:
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if 0 in tensor.shape:
        return np.empty(tensor.shape, flat.dtype)
    if math.prod(tensor.shape) > len(flat) + _EXPANDED:
        raise InputError(f"{path}: tensor {name} of {len(flat)} elements is expanded to the shape {tensor.shape}; save a contiguous copy")
    if last >= len(flat):
        raise InputError(f"{path}: tensor {name} reaches beyond its storage of {len(flat)} elements; {AGAIN}")
    strides = tuple(stride * flat.itemsize for stride in tensor.strides)
    try:
        return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
    except ValueError:
        raise InputError(f"{path}: tensor {name} has the impossible shape {tensor.shape}; {AGAIN}") from None
