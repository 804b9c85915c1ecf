"""A checkpoint's tensors into a model's arrays, and back: heads may be missing or new, the decoder
of words is tied to their table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError
from .files import check_finite

_WORDS = "bert.embeddings.word_embeddings.weight"
_LEARNED = ("classifier.", "qa_outputs.")  # the heads that are learned for a task
_DECODER = "cls.predictions.decoder"  # transformers' other names for the table of words and cls.predictions.bias


def matched(
    shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, np.ndarray], where: str, fresh: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Which of the tensors, by canonical name, is meant by each of a model's names (a bare
    encoder's have no `bert.`), of which `shapes` are known. Nothing is read or allocated.

    Where `fresh` has the beginning of a name, it is left out if the tensor is missing (or, of a
    head that is learned for a task, has another shape). InputError names any other tensor that is
    missing, of another shape, or not of floats.
    """
    found = {}
    for name, shape in shapes.items():
        short = name.removeprefix("bert.")
        source = tensors.get(name if short.startswith(("cls.", *_LEARNED)) else "bert." + short)
        if source is None and name == "cls.predictions.bias":
            source = tensors.get(_DECODER + ".bias")
        if source is not None and source.shape == shape:
            if source.dtype.kind != "f":  # quantised: without its scale a whole number is no weight
                raise InputError(f"{where}: tensor {name} has dtype {source.dtype}; store it as float32, float16 or bfloat16")
            found[name] = source
        elif not (fresh and short.startswith(fresh) and (source is None or short.startswith(_LEARNED))):
            raise InputError(f"{where}: tensor {name} {_problem(short, source, shape, tensors)}")
    return found


def _problem(short: str, source: np.ndarray | None, shape: tuple[int, ...], tensors: Mapping[str, np.ndarray]) -> str:
    """Why a tensor does not fit, or where it may be; `short` is its name without `bert.`."""
    question = "are the weights and config.json of the same model?"
    if source is not None:
        return f"has shape {source.shape}, config.json says {shape}; {question}"
    longer = next((name for name in tensors if name.endswith("." + short)), None)
    if longer is not None:
        return f"is missing, but there is {longer}; take the prefix off the names of the weights"
    return f"is missing; {question}"


def fill(views: Mapping[str, Any], sources: Mapping[str, np.ndarray], where: str) -> None:
    """Writes what `matched` found into a model's arrays. InputError names a tensor whose numbers are
    too large for their type (1e300 is none in float32)."""
    for name, source in sources.items():
        with np.errstate(over="ignore"):
            views[name][...] = source
        if source.dtype.itemsize > views[name].dtype.itemsize:
            check_finite(views[name], name, f"{where} as {views[name].dtype}")


def check_tied(tensors: Mapping[str, np.ndarray], where: str) -> None:
    """InputError where the decoder of words is not tied to their table, as it is in a model here."""
    decoder = tensors.get(_DECODER + ".weight")
    if decoder is not None and not np.array_equal(decoder, tensors[_WORDS]):
        raise InputError(f"{where}: {_DECODER}.weight differs from the word embeddings; a tied decoder is needed")


def with_decoder(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a model and, where it guesses words, its decoder under the names that
    transformers gives it too."""
    if "cls.predictions.bias" not in tensors:
        return dict(tensors)
    return {**tensors, _DECODER + ".weight": tensors[_WORDS], _DECODER + ".bias": tensors["cls.predictions.bias"]}
