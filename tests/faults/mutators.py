"""What can happen to a file: bits that flip, ends that are missing, and fields that say something else than is there.

    mutate(kind, data, random)    kind: json, text, bytes, safetensors, npy, zip, gz, pickles, bundle

Half of the mutants are of the bytes as they lie; the other half know the format, so that what stands behind a length or a checksum
is reached: a header's length is set anew, a zip is packed anew, a table's checksums are worked out again. All are functions of
`random` alone.
"""

from __future__ import annotations

import gzip
import io
import json
import random as random_module
import re
import zipfile
from collections.abc import Callable
from typing import Any

from minitinybert.weights import tensorflow

Random = random_module.Random

_NUMBERS = [0, 1, -1, 2, 7, 255, 2**15, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 10**30, -(2**63), 0.5, 1e308, 1e-308]
_VALUES: list[Any] = [
    None, True, False, "", "a", "1", "\ud800", "\x00", "é\u2028\n", "x" * 3000, "../../x", "/etc/passwd", [], {}, [1], [[1]], {"a": 1},
    {"0": ["a"], "1": "b"}, float("nan"), float("inf"), -float("inf"), *_NUMBERS,
]  # fmt: skip
_KEYS = ["", "extra", "\ud800", "x" * 300, "0", "-1", "7", "99999", str(2**31), "9" * 30, "9" * 5000, "٣", "²", "1_0", " 1"]
_PIECES = [
    b"", b"\x00", b"\xff", b"\n", b"\r\n", b"\t", b" ", b'"', b",", b"{", b"}", b"[", b"]", b"(", b")", b"\xef\xbb\xbf", b"\xff\xfe",
    b"\x80\x80", b"\xe2\x80\xa8", b"\x1a", b"NaN", b"inf", b"-", b"_", b"1e999", b"9" * 40, b"9" * 5000, b"-1", b"0.0", b"null",
    b"[" * 100_000, b"a." * 2000, b"\xff" * 8, b"\x00" * 64, b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY", b"PAR1", b"\x80\x02", b"\x1f\x8b",
    b"version https://git-lfs",
]  # fmt: skip
_DTYPES = [b"'<f8'", b"'<i8'", b"'|O'", b"'<U9'", b"'>u2'", b"'|V0'", b"'<M8[D]'", b"[('a','<i4')]", b"'<u2'"]
_SIZES = [b"0,", b"1,", b"99999999999,", b"-5,", b"3,3,", b"", b"18446744073709551616,", b"2,", b"True,"]


def mutate(kind: str, data: bytes, random: Random) -> bytes:
    """One to three changes of a file of `kind`."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        knows = _FORMATS.get(kind)
        data = knows(data, random) if knows and random.random() < 0.6 else raw(data, random)
    return data


def _span(data: bytes, random: Random, most: int = 64) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    length = random.choice((1, 2, 4, 8, random.randrange(1, most), random.randrange(1, len(data) + 2)))
    return start, min(start + length, len(data))


def raw(data: bytes, random: Random) -> bytes:
    """A change of the bytes, whatever they mean."""
    start, stop = _span(data, random)
    other, end = _span(data, random)
    choice = random.randrange(13)
    if choice < 3 and data:  # bits
        flipped = bytearray(data)
        for _ in range(random.choice((1, 1, 2, 8, 64))):
            flipped[random.randrange(len(data))] ^= 1 << random.randrange(8)
        return bytes(flipped)
    if choice == 3:
        return data[:start]
    if choice == 4:
        return data[:start] + data[stop:]
    if choice == 5:
        return data[:stop] + data[start:stop] * random.choice((1, 1, 3)) + data[stop:]
    if choice == 6:
        return data[:start] + random.choice(_PIECES) + data[random.choice((start, stop)) :]
    if choice == 7:  # a number as machines write it
        size, order = random.choice((1, 2, 4, 8)), random.choice(("little", "big"))
        number = int(random.choice(_NUMBERS)) % 256**size
        return data[:start] + number.to_bytes(size, order) + data[start + size :]  # type: ignore[arg-type]
    if choice == 8:  # a number as people write it
        numbers = list(re.finditer(rb"\d+", data))
        if not numbers:
            return data
        found = random.choice(numbers)
        text = random.choice([str(random.choice(_NUMBERS)).encode(), b"9" * 30, b"", b"-1", b"x", b"0" * found.end(), b"1_0"])
        return data[: found.start()] + text + data[found.end() :]
    if choice == 9:  # two stretches change places
        first, second = sorted([(start, stop), (other, end)])
        if first[1] > second[0]:
            return data[::-1]
        return data[: first[0]] + data[slice(*second)] + data[first[1] : second[0]] + data[slice(*first)] + data[second[1] :]
    if choice == 10:
        return data[:start] + random.randbytes(stop - start) + data[stop:]
    if choice == 11:
        return random.choice([b"", data * 2, data[:1], random.choice(_PIECES), data[::-1], b"\x00" * len(data)])
    return data[:start] + data[other:end] + data[start:]


# ------------------------------------------------------------------------------------------------------------------ formats


def _json(data: bytes, random: Random) -> bytes:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return raw(data, random)
    return json.dumps(changed(tree, random), ensure_ascii=random.random() < 0.8).encode("utf-8", "surrogatepass")


def changed(tree: Any, random: Random) -> Any:
    """A JSON tree with one place changed."""
    places: list[tuple[Any, Any]] = []  # (container, key)

    def visit(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            visit(node[key])

    holder = [json.loads(json.dumps(tree))]
    visit(holder)
    container, key = random.choice(places)
    value = container[key]
    choice = random.randrange(8)
    if choice == 0 and isinstance(container, dict):
        del container[key]
    elif choice == 1 and isinstance(container, dict):
        container[random.choice([*_KEYS, str(key).upper()])] = container.pop(key)
    elif choice == 2:
        other, place = random.choice(places)
        container[key] = json.loads(json.dumps(other[place]))
    elif choice == 3 and isinstance(value, dict):
        value[random.choice(_KEYS)] = random.choice(_VALUES)
    elif choice == 4:
        for _ in range(random.choice((1, 40))):
            value = random.choice(([value], {"a": value}))
        container[key] = value
    elif choice == 5 and isinstance(value, (int, float)):
        container[key] = random.choice([str(value), value + 1, value * 1000, -value, [value]])
    else:
        container[key] = random.choice(_VALUES)
    return holder[0]


def _text(data: bytes, random: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if not lines:
        return raw(data, random)
    i, j = random.randrange(len(lines)), random.randrange(len(lines))
    choice = random.randrange(6)
    if choice == 0:
        del lines[i]
    elif choice == 1:
        lines.insert(i, random.choice([b"\n", b" \n", b"\t\t\n", b"\xff\n", lines[j]]))
    elif choice == 2:
        lines[i], lines[j] = lines[j], lines[i]
    else:  # a field
        parts = re.split(rb"([\t, =])", lines[i])
        parts[random.randrange(len(parts))] = random.choice([*_PIECES, b'"a""b"', b'"a\nb"', b"\xf0\x9f\x98\x80"])
        lines[i] = b"".join(parts)
    return b"".join(lines)


def _safetensors(data: bytes, random: Random) -> bytes:
    """The header's JSON, its length set anew; or the state within its metadata."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
        metadata = header["__metadata__"]
        if "state" in metadata and random.random() < 0.8:
            metadata["state"] = _json(metadata["state"].encode(), random).decode("utf-8", "surrogatepass")
        else:
            header = changed(header, random)
        text = json.dumps(header).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return raw(data, random)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _npy(data: bytes, random: Random) -> bytes:
    """The header as text, its length kept or set anew."""
    length = int.from_bytes(data[8:10], "little")
    header = data[10 : 10 + length]
    swaps = [
        (rb"'<?[a-z]\d'", random.choice(_DTYPES)),
        (rb"\d+,", random.choice(_SIZES)),
        (rb"False", random.choice([b"True", b"None", b"[]", b"0"])),
        (rb"'shape'", b"'form'"),
    ]
    pattern, new = random.choice(swaps)
    header = re.sub(pattern, lambda _: new, header, count=1) if random.random() < 0.7 else raw(header, random)[:65535]
    return data[:8] + len(header).to_bytes(2, "little") + header + data[10 + length :]


def _zip(data: bytes, random: Random) -> bytes:
    """Packed anew with one member changed, dropped, doubled, renamed, compressed, or in another's place."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:
        return raw(data, random)
    if not members:
        return raw(data, random)
    i, j = random.randrange(len(members)), random.randrange(len(members))
    method = zipfile.ZIP_STORED
    choice = random.randrange(8)
    if choice == 0:
        del members[i]
    elif choice == 1:
        members[i] = (random.choice(["../x", "/x", "a/../b", "x" * 500, members[j][0], members[i][0] + "x"]), members[i][1])
    elif choice == 2:
        members[i], members[j] = (members[i][0], members[j][1]), (members[j][0], members[i][1])
    elif choice == 3:
        method = random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    elif choice == 4:
        members[i] = (members[i][0], b"\x00" * random.choice((1 << 12, 1 << 24)))
        method = zipfile.ZIP_DEFLATED
    else:  # most often the one that says what the others are
        i = next((k for k, (name, _) in enumerate(members) if name.endswith(".pkl")), i) if choice < 7 else i
        members[i] = (members[i][0], mutate("pickles" if members[i][0].endswith(".pkl") else "bytes", members[i][1], random))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = method
            archive.writestr(info, content)
    data = made.getvalue()
    if random.random() < 0.2:  # what the directory of entries says of one: flags, method, sizes, place
        at = data.rfind(b"PK\x01\x02") + random.choice((8, 10, 20, 24, 28, 42))
        data = data[:at] + random.choice([b"\x01", b"\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x00", b"\x0c\x00"]) + data[at + 2 :]
    return data


# What a pickle is made of: numbers, names, marks, and what hashes, nests, calls and remembers.
_OPCODES = [
    *(bytes([code]) for code in b"()]}t\x85\x86\x87aesubRQ012.N\x88\x8f\x90\x91\x81\x92"),
    b"K\x07", b"J\xff\xff\xff\x7f", b"\x8a\x09" + b"\xff" * 9, b"\x8b\xff\xff\xff\x7f", b"q\x00", b"h\x00", b"r\xff\xff\xff\xff",
    b"X\xff\xff\xff\xff", b"B\xff\xff\xff\x7f", b"V\xff\xff\n", b"G" + b"\x7f" * 8, b"\x95" + b"\xff" * 8, b"I" + b"9" * 5000 + b"\n",
    b"cos\nsystem\n", b"c__builtin__\neval\n", b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ccollections\nOrderedDict\n", b"\x85" * 50_000, b"]" * 1000 + b"a" * 999,
]  # fmt: skip


def _pickles(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    code = random.choice(_OPCODES)
    return data[:at] + code + data[at + random.choice((0, len(code), 1)) :]


def _gz(data: bytes, random: Random) -> bytes:
    try:
        return gzip.compress(mutate("text", gzip.decompress(data), random), 1, mtime=0)
    except Exception:
        return raw(data, random)


def _bundle(data: bytes, random: Random) -> bytes:
    """A block of a TensorFlow index, its checksum worked out again."""
    try:
        _, _, position = tensorflow._handle(data, len(data) - 48)
        begin, length, _ = tensorflow._handle(data, position)
        blocks = [(begin, length)]
        blocks += [tensorflow._handle(handle, 0)[:2] for _, handle in tensorflow._block(data, begin, length, None)]  # type: ignore[arg-type]
    except Exception:
        return raw(data, random)
    begin, length = random.choice(blocks[-1:] + blocks)
    block = bytearray(data[begin : begin + length + 1])
    for _ in range(random.choice((1, 1, 2, 5))):
        block[random.randrange(len(block))] = random.choice((0, 1, 8, 0x7F, 0x80, 0xFF, random.randrange(256)))
    return data[:begin] + bytes(block) + tensorflow._masked_crc32c(bytes(block)).to_bytes(4, "little") + data[begin + length + 5 :]


_FORMATS: dict[str, Callable[[bytes, Random], bytes]] = {
    "json": _json, "text": _text, "safetensors": _safetensors, "npy": _npy, "zip": _zip, "pickles": _pickles, "gz": _gz, "bundle": _bundle,
}  # fmt: skip
