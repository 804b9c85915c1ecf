"""Hugging Face's layout: a directory with config.json, model.safetensors (one file or shards) and
the tokenizer's files."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import InputError
from ..files import AGAIN, building, json_text, read_json, replacing, writing
from . import hf_tokenizer
from .files import not_weights, widened
from .hf_tokenizer import TOKENIZER_FILES

_CONFIGS = ("config.json", "bert_config.json")  # Google's and the first PyTorch BERTs' is the second
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_INTEGERS = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"}
_DTYPES = _FLOATS | _INTEGERS | {"BOOL": "?"}


def read_config(directory: Path) -> dict[str, Any]:
    """config.json or bert_config.json, parsed. InputError where neither is there, or it is not a
    JSON object."""
    for name in _CONFIGS:
        if (directory / name).is_file():
            return read_json(directory / name)
    raise InputError(f"{directory}: no config.json (nor bert_config.json); put the model's own beside its weights")


def tokenizer_files(directory: Path) -> dict[str, Path]:
    return {name: directory / name for name in TOKENIZER_FILES if (directory / name).is_file()}


# ------------------------------------------------------------------------------------------------ reading


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of one file, memory-mapped and read-only (bfloat16: a copy in float32).

    InputError where it is not a safetensors file, is cut short (naming the first tensor that is not
    all there), or holds a dtype that NumPy lacks.
    """
    try:
        with safe_open(path, framework="np"):  # the library checks the header: sizes, gaps, overlaps, the file's length
            pass
    except SafetensorError as error:
        raise _explained(path, error) from None
    header, start = _header(path)
    data = np.memmap(path, np.uint8, "r").view(np.ndarray)[start:]
    return {name: _tensor(data, entry, name, path) for name, entry in header.items()}


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The tensors' entries {dtype, shape, data_offsets} by name, and where the data begins;
    ValueError, struct.error."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        raw = file.read(min(length, 100_000_000))  # the format's own limit
    header = json.loads(raw)
    if not isinstance(header, dict):
        raise ValueError("the header is not an object")
    header.pop("__metadata__", None)
    return header, 8 + length


def _tensor(data: np.ndarray, entry: dict[str, Any], name: str, path: Path) -> np.ndarray:
    if entry["dtype"] not in _DTYPES:
        raise InputError(f"{path}: tensor {name} has dtype {entry['dtype']}; store it as F32, F16 or BF16")
    begin, end = entry["data_offsets"]
    values = data[begin:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return widened(values) if entry["dtype"] == "BF16" else values


def _explained(path: Path, error: SafetensorError) -> InputError:
    """Why the library refused the file, by the tensor that suffers where the header is still
    legible."""
    try:
        header, start = _header(path)
        by_place = sorted((entry["data_offsets"][1], name) for name, entry in header.items())
        there = path.stat().st_size - start
        missing = [name for end, name in by_place if end > there]
    except (ValueError, struct.error, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return _headless(path)
    if not missing:
        return InputError(f"{path}: a damaged safetensors file ({error}); {AGAIN}")
    more = f" and of {len(missing) - 1} more" if missing[1:] else ""
    return InputError(f"{path}: cut short; bytes of tensor {missing[0]}{more} are missing; {AGAIN}")


def _headless(path: Path) -> InputError:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
    if len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") > size - 8:
        return InputError(f"{path}: cut short inside its header, before the first tensor; {AGAIN}")
    return not_weights(path, "a safetensors file")


def read_sharded(index: Path, read_shard: Callable[[Path], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The tensors of several files beside `index`, a …index.json whose weight_map tells which file
    holds which tensor."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(is_plain_name(shard) for shard in weight_map.values()):
        raise InputError(f"{index}: its weight_map does not give a file's name for each tensor; {AGAIN}")
    tensors = {}
    for shard in sorted(set(weight_map.values())):
        names = [name for name, place in weight_map.items() if place == shard]
        path = index.parent / shard
        if not path.is_file():
            raise InputError(f"{path}: missing; {index.name} says that it holds tensor {names[0]} ({len(names)} in all)")
        held = read_shard(path)
        for name in names:
            if name not in held:
                raise InputError(f"{path}: does not hold tensor {name}, which {index.name} says is there; {AGAIN}")
            tensors[name] = held[name]
    return tensors


def is_plain_name(name: object) -> bool:
    """A file's name that stays in its directory: an index may come from anywhere."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\:\0")


# ------------------------------------------------------------------------------------------------ writing


def write(directory: str | Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], tokenizer_files: Mapping[str, Path]) -> None:
    """A model directory that `read` and transformers open: config.json, model.safetensors and the
    tokenizer's files (see hf_tokenizer.py).

    A directory that is not there yet appears whole or not at all. In one that is there each file is
    replaced whole, the weights last; a tokenizer's files of other names than those given go away
    (none given: those there stay), so that no two mix. InputError where it cannot be written, or a
    tensor has a dtype that the format lacks.
    """
    directory = Path(directory)
    for name, tensor in tensors.items():
        if np.asarray(tensor).dtype.kind not in "fiub" or np.asarray(tensor).dtype.itemsize > 8:
            raise InputError(f"{directory}: tensor {name} has dtype {np.asarray(tensor).dtype}; safetensors cannot hold it")
    if directory.exists():
        with writing(directory):
            _write_files(directory, config, tensors, tokenizer_files)
    else:
        with building(directory) as beside:
            _write_files(beside, config, tensors, tokenizer_files)


def _write_files(
    directory: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], tokenizer_files: Mapping[str, Path]
) -> None:
    with replacing(directory / "config.json") as beside:
        beside.write_text(json_text(dict(config), indent=2) + "\n", encoding="utf-8")
    written = hf_tokenizer.write(directory, tokenizer_files, config.get("max_position_embeddings"))
    for name in set(TOKENIZER_FILES) - written if written else ():
        (directory / name).unlink(missing_ok=True)
    # order="C", because save_file would write a transposed array's memory as it lies; not
    # ascontiguousarray, which makes () to (1,)
    arrays = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    with replacing(directory / "model.safetensors") as beside:
        save_file(arrays, beside, metadata={"format": "pt"})
