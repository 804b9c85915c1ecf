"""Google's BERT checkpoints without TensorFlow: the tensor bundle of a tf.train.Saver.

    PREFIX.index                  a sorted string table (LevelDB's): name -> BundleEntryProto (dtype, shape, shard, offset, size)
    PREFIX.data-00000-of-0000N    the tensors' bytes as they lie in memory

The table: blocks of entries, each the length of the prefix that its key shares with the key before,
the rest of the key, the value; after each block one byte of compression (0 none) and a masked
CRC-32C; at the end of the file 48 bytes that say where the block lies that lists the others.
Sources: tensorflow/core/lib/io/format.cc, tensorflow/core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..files import AGAIN
from .files import widened

_FOOTER, _TABLE_MAGIC = 48, 0xDB4775248B80FB57
_INDEX_BYTES = 16 << 20  # BERT-large's, with its optimiser's tensors, has 50 kB
_NAME_BYTES = 4096  # the longest name; each may share its front with the one before
_BFLOAT16 = 14
_FLOATS = {1: "<f4", 2: "<f8", 19: "<f2", _BFLOAT16: "<u2"}  # DataType of tensorflow/core/framework/types.proto
_INTEGERS = {3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 17: "<u2", 22: "<u4", 23: "<u8"}
_DTYPES = _FLOATS | _INTEGERS | {10: "?"}


class _Entry(NamedTuple):
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    sliced: bool


def read(prefix: Path) -> dict[str, np.ndarray]:
    """The model's tensors under their PyTorch names, dense kernels transposed; memory-mapped,
    read-only (bfloat16: float32).

    What else lies beside them, such as an optimiser's moments and counters, stays behind. InputError
    where a file is missing, damaged or cut short (naming the tensor), compressed, or not a BERT's.
    """
    shards, entries = _bundle(Path(f"{prefix}.index"))
    paths: list[Path] = []
    while len(paths) < shards:  # ends at the first that is not there, whatever number the header says
        paths.append(Path(f"{prefix}.data-{len(paths):05d}-of-{shards:05d}"))
        if not paths[-1].is_file():
            raise InputError(f"{paths[-1]}: missing; {prefix}.index says that there are {shards} of them; {AGAIN}")
    data = [np.memmap(path, np.uint8, "r").view(np.ndarray) if path.stat().st_size else np.empty(0, np.uint8) for path in paths]
    for name, entry in entries.items():  # the optimiser's too: a shard that lacks them was not copied whole
        if entry.shard >= shards:
            raise InputError(f"{prefix}.index: tensor {name} is in file {entry.shard} of {shards}; {AGAIN}")
        if entry.offset + entry.size > len(data[entry.shard]):
            raise InputError(f"{paths[entry.shard]}: cut short; bytes of tensor {name} are missing; {AGAIN}")
    model = {name: entry for name, entry in entries.items() if _MODEL_S.fullmatch(name)}
    if not any("bert/" in name for name in model):
        there = ", ".join(list(entries)[:4])
        raise InputError(f"{prefix}: not Google's BERT: no tensor such as bert/pooler/dense/kernel (it has {there}, …)")
    return dict(_converted(name, _array(data[entry.shard], entry, name, prefix)) for name, entry in model.items())


def _array(data: np.ndarray, entry: _Entry, name: str, prefix: Path) -> np.ndarray:
    if entry.dtype not in _DTYPES or entry.sliced:
        what = "is stored in slices" if entry.sliced else f"has TensorFlow's dtype number {entry.dtype}"
        raise InputError(f"{prefix}: tensor {name} {what}, which is not read; save it again as one plain tensor")
    dtype = np.dtype(_DTYPES[entry.dtype])
    if math.prod(entry.shape) * dtype.itemsize != entry.size:
        raise InputError(f"{prefix}.index: tensor {name} of shape {entry.shape} has {entry.size} bytes; {AGAIN}")
    values = data[entry.offset : entry.offset + entry.size].view(dtype).reshape(entry.shape)
    return widened(values) if entry.dtype == _BFLOAT16 else values


# ------------------------------------------------------------------------------------------------ names


# The last parts of the names of a model's tensors. Whatever else there is has others: an optimiser's slots (…/kernel/adam_m,
# …/LAMB, …/Momentum), moving averages (…/kernel/ExponentialMovingAverage), counters (global_step), of which no list is complete.
_LEAVES = ("kernel", "bias", "gamma", "beta", "output_weights", "output_bias")
_TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
# And the first: an optimiser may keep its slots under a name of its own before the tensor's. module and model are wrappers'.
_WRAPPED = r"((module|model)/)*"
_MODEL_S = re.compile(rf"{_WRAPPED}((bert|cls|classifier)/(.+/)?({'|'.join(_LEAVES + _TABLES)})|output_weights|output_bias)")


def _converted(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    """`bert/encoder/layer_0/output/dense/kernel` (f, d) ->
    `bert.encoder.layer.0.output.dense.weight` (d, f)."""
    *scopes, last = re.sub(rf"^{_WRAPPED}|(?<=/layer)_(?=\d)", lambda match: "/" if match[0] == "_" else "", name).split("/")
    if last == "kernel":
        tensor = tensor.T  # TensorFlow's dense layer is x W, PyTorch's x Wᵀ
    if last.endswith("_embeddings"):
        scopes, last = [*scopes, last], "weight"
    if last in ("output_weights", "output_bias") and not scopes:
        scopes = ["classifier"]  # of run_classifier.py
    last = {"kernel": "weight", "output_weights": "weight", "output_bias": "bias"}.get(last, last)
    return ".".join([*scopes, last]), tensor


# ------------------------------------------------------------------------------------------------ the index


def _bundle(path: Path) -> tuple[int, dict[str, _Entry]]:
    """The number of shards, and each tensor's entry."""
    if path.stat().st_size > _INDEX_BYTES:
        raise InputError(f"{path}: {path.stat().st_size} bytes, too many for an index of tensors; {AGAIN}")
    table = path.read_bytes()
    if len(table) < _FOOTER or int.from_bytes(table[-8:], "little") != _TABLE_MAGIC:
        raise InputError(f"{path}: cut short, or not the index of a TensorFlow checkpoint; {AGAIN}")
    try:
        # keys that begin with a zero byte are slices of a tensor, whose own entry says so
        entries = {key.decode(): value for key, value in _table(table, path) if not key.startswith(b"\0")}
        header = dict(_fields(entries.pop("")))
        parsed = {name: _entry(value) for name, value in entries.items()}
    except (IndexError, KeyError, ValueError, TypeError):
        raise InputError(f"{path}: damaged; {AGAIN}") from None
    shards, big_endian = header.get(1, 0), header.get(2, 0)
    if big_endian:
        raise InputError(f"{path}: written on a big-endian machine; save it on a little-endian one")
    if not isinstance(shards, int) or not shards:
        raise InputError(f"{path}: does not say in how many files its tensors are; {AGAIN}")
    return shards, parsed


def _table(table: bytes, path: Path) -> Iterator[tuple[bytes, bytes]]:
    _, _, position = _handle(table, len(table) - _FOOTER)  # that of the meta-index, which is empty
    begin, length, _ = _handle(table, position)
    left = len(table)
    for _, handle in _block(table, begin, length, path):
        begin, length, _ = _handle(handle, 0)
        left -= length
        if left < 0:
            raise ValueError("blocks that lie over one another")
        yield from _block(table, begin, length, path)


def _handle(data: bytes, position: int) -> tuple[int, int, int]:
    """(where a block begins, its length), and the position after the two."""
    begin, position = _varint(data, position)
    length, position = _varint(data, position)
    return begin, length, position


def _block(table: bytes, begin: int, length: int, path: Path) -> Iterator[tuple[bytes, bytes]]:
    end = begin + length
    if end + 5 > len(table):
        raise IndexError
    if table[end]:
        raise InputError(f"{path}: its blocks are compressed (kind {table[end]}), which is not read; save it with tf.train.Saver")
    if _masked_crc32c(table[begin : end + 1]) != int.from_bytes(table[end + 1 : end + 5], "little"):
        raise ValueError("checksum")
    restarts = int.from_bytes(table[end - 4 : end], "little")
    key, position, last = b"", begin, end - 4 - 4 * restarts
    while position < last:
        shared, position = _varint(table, position)
        fresh, position = _varint(table, position)
        size, position = _varint(table, position)
        if shared + fresh > _NAME_BYTES:
            raise ValueError("a name of no length")
        key = key[:shared] + table[position : position + fresh]
        position += fresh + size
        yield key, table[position - size : position]


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first, the eighth bit on all but the last. IndexError beyond
    the data, ValueError beyond 64 bits."""
    value = shift = 0
    while shift < 70:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 64 bits")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protocol buffer's message: an integer, or the bytes of a string or
    a message within."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, position = _varint(message, position)
        else:
            size = {1: 8, 5: 4}[kind]
        yield tag >> 3, message[position : position + size]
        position += size


def _entry(message: bytes) -> _Entry:
    """A field that is 0 is left out of the message. TypeError where a size is no number."""
    fields = list(_fields(message))
    numbers = {number: value for number, value in fields if isinstance(value, int)}
    parts = {number: value for number, value in fields if isinstance(value, bytes)}
    dims = [dict(_fields(dim)) for number, dim in _fields(parts.get(2, b"")) if number == 2 and isinstance(dim, bytes)]
    return _Entry(
        dtype=numbers.get(1, 0),
        shape=tuple(operator.index(dim.get(1, 0)) for dim in dims),  # type: ignore[arg-type]
        shard=numbers.get(3, 0),
        offset=numbers.get(4, 0),
        size=numbers.get(5, 0),
        sliced=7 in parts,
    )


# ------------------------------------------------------------------------------------------------ CRC-32C


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # Castagnoli's polynomial, bits reversed
        table.append(byte)
    return table


_CRC = _crc_table()


def _masked_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF  # the mask: so that a CRC of data holding CRCs stays one
