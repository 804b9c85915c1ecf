"""Words and their vectors as files hold them, read in one pass; the kind is told by what is in the
file.

text          a row a word: the word, then its d numbers, with spaces or tabs between. The last d
              fields are the vector and all before them the word, for GloVe's 840B has words such as
              ". . .". The first line may be word2vec's header, two whole numbers (words, d); without
              one d is as many numbers as most of the first rows end with.
word2vec      its binary: the header, then each word, a space and d float32
fastText      its binary, with vectors of n-grams
gensim        a model saved whole: gensim_models.py

each as it is, gzipped, or in a zip archive (archive.zip/name where that has several files).
"""

from __future__ import annotations

import gzip
import io
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError
from .gensim_models import Table, read_model, with_ngrams

_PICKLE = b"\x80"  # begins no UTF-8 text, nor any other kind here
_FASTTEXT = struct.pack("<i", 793712314)
_LINE = 1 << 20  # bytes of a word and its vector, at most
_WORD = 1 << 12
_WIDTH = 1 << 18
_SAMPLE = 1000  # rows that tell d
_AT_ONCE = 1 << 26  # bytes


def read_vectors(path: Path, member: str | None = None, limit: int | None = None) -> Table:
    """The first `limit` words (None: all) of a file, or of `member` in a zip archive; of a word that
    comes twice the first vector.

    InputError for what the user has to choose; ValueError, EOFError and those of the libraries
    beneath for a file that is none of the kinds, or damaged.
    """
    with ExitStack() as stack:
        file: Any = stack.enter_context(path.open("rb"))
        name = path.name
        if file.peek(4).startswith(b"PK\x03\x04"):
            archive = stack.enter_context(zipfile.ZipFile(file))
            name = _chosen(path, archive, member)
            file = io.BufferedReader(stack.enter_context(archive.open(name)))  # type: ignore[type-var]
        elif member is not None:
            raise InputError(f"{path}: not a zip archive, which alone has files such as {member} in it")
        if file.peek(2).startswith(b"\x1f\x8b"):
            file = io.BufferedReader(stack.enter_context(gzip.GzipFile(fileobj=file)))  # type: ignore[type-var]
        start = bytes(file.peek(4))
        if start.startswith(_PICKLE):
            return read_model(file, path, limit)
        if start.startswith(_FASTTEXT):
            return _fasttext(file, limit)
        return _lines_or_binary(file, ".bin" in PurePosixPath(name).suffixes, limit)


def _chosen(path: Path, archive: zipfile.ZipFile, member: str | None) -> str:
    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    if member is not None:
        if member not in names:
            raise InputError(f"{path}: no {member} in it; it holds {', '.join(names)}")
        return member
    shown = [name for name in names if not name.startswith("__MACOSX/") and not PurePosixPath(name).name.startswith(".")]
    tables = [name for name in shown if PurePosixPath(name).suffix.lower() in (".txt", ".vec", ".bin", ".tsv")] or shown
    if len(tables) != 1:
        raise InputError(f"{path}: holds {', '.join(tables) or 'no file'}; name one, as {path}/{(tables or ['NAME'])[-1]}")
    return tables[0]


class _Rows:
    """Words and vectors as they come; the memory grows with them and not with what a header says."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.vectors = np.empty((0, 0), np.float32)

    def add(self, word: str, vector: np.ndarray) -> None:
        n = len(self.numbers)
        if self.numbers.setdefault(word, n) < n:
            return
        if n == len(self.vectors):
            self.vectors.resize((max(1, 2 * n), len(vector)), refcheck=False)
        self.vectors[n] = vector

    def table(self) -> Table:
        if not self.numbers:
            raise ValueError("the file is empty")
        self.vectors.resize((len(self.numbers), self.vectors.shape[1]), refcheck=False)
        return list(self.numbers), self.vectors


# ----------------------------------------------------------------------------------------------------------------------- text


def _lines_or_binary(file: BinaryIO, binary: bool, limit: int | None) -> Table:
    first = file.readline(_LINE)
    if not first:
        raise ValueError("the file is empty")
    header = re.fullmatch(rb"(?:\xef\xbb\xbf)?(\d{1,18})[ \t]+(\d{1,18})\s*", first)
    if header is None:
        if binary:
            raise ValueError("its first line is not word2vec's: two whole numbers")
        return _text(chain([first], _lines(file)), None, None, limit)
    n, d = int(header[1]), int(header[2])
    if not 1 <= d <= _WIDTH:
        raise ValueError(f"line 1 says that a vector has {d} numbers")
    begin = file.peek(_WORD)[:_WORD]  # type: ignore[attr-defined]
    return _binary(file, n, d, limit) if binary or re.search(rb"[\x00-\x08]", begin) else _text(_lines(file), n, d, limit)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(_LINE):
        yield line


def _text(lines: Iterator[bytes], n: int | None, d: int | None, limit: int | None) -> Table:
    """n, d: what a header said, and nothing where there is none."""
    rows, number = _Rows(), 0
    sample = list(islice(lines, _SAMPLE))
    if d is None:
        sample[0] = sample[0].removeprefix(b"\xef\xbb\xbf")
        d = _width(sample)
    for number, line in enumerate(chain(sample, lines), 1 if n is None else 2):
        if len(line) == _LINE:
            raise ValueError(f"line {number} is longer than a word and a vector")
        if line := line.rstrip(b" \t\r\n"):
            rows.add(*_row(line, d, number))
            if len(rows.numbers) == limit:
                return rows.table()
    if n is not None and number - 1 < n:
        raise ValueError(f"line 1 says that there are {n} words, and there are {max(number - 1, 0)}: it is cut short")
    return rows.table()


def _width(sample: list[bytes]) -> int:
    """How many numbers most rows end with, the first field being a word whatever it looks like."""
    counts = Counter(_numbers_last(line.split()[1:]) for line in sample if line.strip())
    counts.pop(0, None)
    width = max(counts, key=counts.__getitem__, default=len(sample[0].split()) - 1)
    if width < 1:
        raise ValueError("line 1 has no numbers behind its word")
    return width


def _numbers_last(fields: list[bytes]) -> int:
    return next((i for i, field in enumerate(reversed(fields)) if not _is_number(field)), len(fields))


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _row(line: bytes, d: int, number: int) -> tuple[str, np.ndarray]:
    line = line.replace(b"\t", b" ")
    word, *values = line.rsplit(b" ", d)
    if b"" in values:
        word, *values = re.sub(rb" +", b" ", line).rsplit(b" ", d)
    # A word may end with numbers ("top 10"); one of half a vector is a row of another width.
    more = sum(map(_is_number, word.split(b" ")[1:])) if b" " in word else 0
    if len(values) < d or (more and 2 * more >= d):
        raise ValueError(f"line {number} has {len(values) + more} values, where {d} belong")
    try:
        with np.errstate(over="ignore"):  # an infinite number is told by its word
            return word.decode("utf-8"), np.array(values, np.float32)
    except UnicodeDecodeError:
        raise ValueError(f"line {number} is not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None


# --------------------------------------------------------------------------------------------------------------------- binaries


def _binary(file: BinaryIO, n: int, d: int, limit: int | None) -> Table:
    rows = _Rows()
    for _ in range(n):
        word = _until(file, b" ").lstrip(b"\n").decode("utf-8", "replace")  # the tool cuts words amid a character
        rows.add(word, np.frombuffer(_exactly(file, 4 * d), "<f4"))
        if len(rows.numbers) == limit:
            break
    return rows.table()


def _fasttext(file: BinaryIO, limit: int | None) -> Table:
    """fastText's `saveModel`: magic, version, arguments, dictionary, matrix of words and n-grams."""
    _, _, d, *arguments = struct.unpack("<14i", _exactly(file, 56))
    bucket, minn, maxn = arguments[7:10]
    _exactly(file, 8)
    size, nwords, nlabels, _, pruned = struct.unpack("<3i2q", _exactly(file, 28))
    if nlabels or size != nwords:
        raise ValueError("a fastText classifier, whose words have no vectors of general use")
    if not (1 <= d <= _WIDTH and 0 <= minn <= 100 and 0 <= maxn <= 100 and bucket >= 0):
        raise ValueError(f"fastText's numbers in it make no sense: {d} dimensions, {bucket} buckets, n-grams of {minn} to {maxn}")
    words = []
    for _ in range(nwords):
        words.append(_until(file, b"\0").decode("utf-8", "backslashreplace"))
        _exactly(file, 9)  # count, kind
    if pruned > 0 or _exactly(file, 1) != b"\0":
        raise ValueError("a quantised fastText model (.ftz); the .bin or .vec that it was made of is read")
    if struct.unpack("<2q", _exactly(file, 16)) != (nwords + bucket, d) or len(set(words)) < nwords:
        raise ValueError("its matrix does not have a row for each word and bucket")
    known = np.frombuffer(_exactly(file, 4 * d * nwords), "<f4").reshape(nwords, d)
    ngrams = np.frombuffer(_exactly(file, 4 * d * bucket), "<f4").reshape(bucket, d)
    return words[:limit], with_ngrams(words[:limit], known[:limit], ngrams, minn, maxn)


def _until(file: BinaryIO, end: bytes) -> bytes:
    word = bytearray()
    while (byte := file.read(1)) != end:
        if not byte or len(word) == _WORD:
            raise EOFError("it is cut short, or damaged, in a word")
        word += byte
    return bytes(word)


def _exactly(file: BinaryIO, count: int) -> bytearray:
    """`count` bytes; no more are allocated than there are."""
    found = bytearray()
    while len(found) < count:
        part = file.read(min(count - len(found), _AT_ONCE))
        if not part:
            raise EOFError("it is cut short")
        found += part
    return found
