"""Word vectors from a gensim model saved whole (KeyedVectors.save, Word2Vec.save, FastText.save),
without running what is pickled in it.

gensim's own `load` runs whatever a pickle says, so that a file from a stranger can do anything. Here
every class and function that the pickle names becomes an inert record of its arguments and state; of
these records the words and the arrays of numbers are read, and nothing else. Large arrays are in
files beside it: NAME.vectors.npy, NAME.wv.vectors.npy.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError

Table = tuple[list[str], np.ndarray]  # words, (words, d) floating point
_WAY_OUT = 'in Python, model.wv.save_word2vec_format("vectors.txt") writes what is read'


class _Inert:
    """What a pickle would have made by a call of `name`: its arguments and state, and no more."""

    name = ""

    def __new__(cls, *args: Any, **_: Any) -> _Inert:
        made = object.__new__(cls)
        made.args, made.state = args, {}
        return made

    args: tuple[Any, ...]
    state: Any

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:  # items of a dict's subclass
        pass

    def extend(self, values: Any) -> None:  # of a list's
        pass

    append = add = extend


# The unpickler written in Python: the one in C sizes its memo by any number that a file holds.
class _Unpickler(pickle._Unpickler):
    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.classes: dict[tuple[str, str], type[_Inert]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.classes:
            self.classes[module, name] = type("_Inert", (_Inert,), {"name": f"{module}.{name}"})
        return self.classes[module, name]


def read_model(file: BinaryIO, path: Path, limit: int | None = None) -> Table:
    """Words and vectors of the model in an open file, called `path`.

    InputError where it holds none that can be read so, or a file beside it is missing; whatever a
    damaged pickle ends in.
    """
    saved, beside = _Unpickler(file).load(), str(path)
    state = _state(saved)
    if isinstance(state.get("wv"), _Inert):
        state, beside = _state(state["wv"]), beside + ".wv"
    words = state.get("index_to_key") or state.get("index2word")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words) or len(set(words)) < len(words):
        what = saved.name if isinstance(saved, _Inert) else f"a {type(saved).__name__}"
        raise InputError(f"{path}: a pickle ({what}) without a gensim model's words; {_WAY_OUT}")
    kept = words[:limit]
    if "vectors_ngrams" not in (*state, *_beside(state)):
        return kept, _array(state, "vectors", beside)[: len(kept)]
    minn, maxn = (state.get(name) for name in ("min_n", "max_n"))
    if not (isinstance(minn, int) and isinstance(maxn, int) and 0 <= minn <= 100 and 0 <= maxn <= 100):
        raise InputError(f"{path}: n-grams of {minn!r} to {maxn!r} characters; {_WAY_OUT}")
    known, ngrams = (_array(state, name, beside) for name in ("vectors_vocab", "vectors_ngrams"))
    if len(known) < len(kept) or known.shape[1] != ngrams.shape[1]:
        raise InputError(f"{path}: {len(words)} words with vectors of shape {known.shape} and {ngrams.shape}; {_WAY_OUT}")
    return kept, with_ngrams(kept, known[: len(kept)], ngrams, minn, maxn)


def _state(record: Any) -> dict[str, Any]:
    return record.state if isinstance(record, _Inert) and isinstance(record.state, dict) else {}


def _beside(state: dict[str, Any]) -> list[Any]:
    """The names of the arrays that have files of their own."""
    names = state.get("__numpys")
    return names if isinstance(names, list) else []


def _array(state: dict[str, Any], name: str, beside: str) -> np.ndarray:
    """An array of (words, d) numbers, from its own file or the pickle."""
    file = Path(f"{beside}.{name}.npy")
    if name in _beside(state):
        if not file.exists():
            raise InputError(f"{file}: not there, and it holds the model's vectors; copy it beside the model")
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    else:
        found = _decoded(state.get(name))
    if found is None or found.ndim != 2 or found.dtype.kind != "f":
        raise InputError(f"{beside}: its {name} is no table of numbers that is read here; {_WAY_OUT}")
    return found


def _decoded(record: Any) -> np.ndarray | None:
    """The array that NumPy pickled, by either of its ways; None for anything else."""
    if not isinstance(record, _Inert):
        return None
    if record.name.endswith("._reconstruct") and isinstance(record.state, tuple) and len(record.state) == 5:
        _, shape, dtype, columns_first, data = record.state
    elif record.name.endswith("._frombuffer") and len(record.args) == 4:
        data, dtype, shape, columns_first = record.args[0], record.args[1], record.args[2], record.args[3] == "F"
    else:
        return None
    if isinstance(data, _Inert) and data.name == "_codecs.encode":  # bytes, before protocol 3
        data = str(data.args[0]).encode("latin1")
    kind = dtype.args[0] if isinstance(dtype, _Inert) and dtype.args else None
    if kind not in ("f2", "f4", "f8") or not isinstance(data, (bytes, bytearray)) or not isinstance(shape, tuple):
        return None
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    return np.frombuffer(data, (">" if order == ">" else "<") + kind).reshape(shape, order="F" if columns_first else "C")


def with_ngrams(words: list[str], known: np.ndarray, ngrams: np.ndarray, minn: int, maxn: int) -> np.ndarray:
    """fastText's vectors of words: the mean of each one's own (n, d) and those of its n-grams, by
    their hashes in (buckets, d)."""
    from gensim.models.fasttext import FastTextKeyedVectors

    keyed = FastTextKeyedVectors(known.shape[1], minn, maxn, len(ngrams))
    keyed.index_to_key, keyed.vectors_vocab, keyed.vectors_ngrams = words, known, ngrams
    keyed.recalc_char_ngram_buckets()
    keyed.adjust_vectors()
    return keyed.vectors
