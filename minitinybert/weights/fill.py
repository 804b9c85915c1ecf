"""A checkpoint's tensors into a model's arrays, and back: heads may be missing or new, the decoder
of words is tied to their table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError

_WORDS = "bert.embeddings.word_embeddings.weight"
_DECODER = "cls.predictions.decoder"  # transformers' other names for the table of words and cls.predictions.bias


def fill(views: Mapping[str, Any], tensors: Mapping[str, np.ndarray], where: str, fresh: tuple[str, ...]) -> None:
    """Writes the tensors, by canonical name, into `views`, by a model's names (a bare encoder's
    have no `bert.`).

    Where `fresh` has the beginning of a name, the view stays as it is if the tensor is missing (or,
    of a head that is learned for a task, has another shape). InputError names any other tensor that is missing or of
    another shape, and a decoder that is not tied to the words.
    """
    for name, view in views.items():
        short = name.removeprefix("bert.")
        source = tensors.get(name if short.startswith(("cls.", "classifier.", "qa_outputs.")) else "bert." + short)
        if source is None and name == "cls.predictions.bias":
            source = tensors.get(_DECODER + ".bias")
        if source is not None and source.shape == view.shape:
            view[...] = source
        elif not (fresh and short.startswith(fresh) and (source is None or short.startswith(("classifier.", "qa_outputs.")))):
            problem = "is missing" if source is None else f"has shape {source.shape}, config.json says {view.shape}"
            raise InputError(f"{where}: tensor {name} {problem}; are the weights and config.json of the same model?")
    decoder = tensors.get(_DECODER + ".weight")
    if "cls.predictions.bias" in views and decoder is not None and not np.array_equal(decoder, tensors[_WORDS]):
        raise InputError(f"{where}: {_DECODER}.weight differs from the word embeddings; a tied decoder is needed")


def with_decoder(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a model and, where it guesses words, its decoder under the names that
    transformers gives it too."""
    if "cls.predictions.bias" not in tensors:
        return dict(tensors)
    return {**tensors, _DECODER + ".weight": tensors[_WORDS], _DECODER + ".bias": tensors["cls.predictions.bias"]}
