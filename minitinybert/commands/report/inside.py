"""What goes on inside a teacher and its student: attention, how far each layer of one is from each of
the other, and the learned maps W_e and W_h.

    sentences ─▶ forward ─┬▶ softmax(A) of each layer and head                            side by side
                          └▶ hidden[0…M], hidden[0…N] ─▶ L_hidn through W_h, linear CKA    heat maps
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file

from ... import weights
from ...data.tokenizer import Encoded, Tokenizer
from ...distillation.distill import projection_names
from ...distillation.recipes import Recipe
from ...engine.device import array_module, to_host
from ...errors import InputError
from ...losses import hidden
from ...model.bert import Bert
from ...ops import softmax
from ...training.left import MAPS

MOST_SENTENCES, MOST_PIECES = 24, 32  # of whose attention a page has room
COMPARED_SENTENCES, COMPARED_TOKENS = 200, 4000  # at most, over which layers are compared


def attention(model: Bert, sentence: Encoded) -> np.ndarray:
    """(layers, heads, L, L) float32: softmax(A), whom each token (row) attends to."""
    trace, _ = model.forward(sentence.input_ids[None], token_type_ids=_segments(model, sentence)[None])
    return np.stack([to_host(softmax.forward(A)[0])[0] for A in trace.scores or ()])


def _segments(model: Bert, sentence: Encoded) -> np.ndarray:
    return sentence.token_type_ids if model.config.type_vocab_size > 1 else np.zeros_like(sentence.token_type_ids)


def choose(sentences: Sequence[Encoded], first: Sequence[int], count: int) -> list[int]:
    """`count` sentences of at most MOST_PIECES: half of them those of `first` that fit, in their
    order, the others evenly spaced among the rest; the shortest ones where none fits."""
    fit = [i for i, sentence in enumerate(sentences) if len(sentence.input_ids) <= MOST_PIECES]
    if not fit:
        fit = sorted(range(len(sentences)), key=lambda i: len(sentences[i].input_ids))[:count]
    known = set(fit)
    chosen = [i for i in first if i in known][: (count + 1) // 2]
    rest = [i for i in fit if i not in set(chosen)]
    places = np.linspace(0, len(rest) - 1, min(count - len(chosen), len(rest))).round().astype(int)
    return chosen + [rest[i] for i in places]


def cut(sentence: Encoded, last: int) -> Encoded:
    """Of at most MOST_PIECES, which end with `last`, [SEP]."""
    if len(sentence.input_ids) <= MOST_PIECES:
        return sentence
    ids = np.append(sentence.input_ids[: MOST_PIECES - 1], last).astype(np.int32)
    return Encoded(ids, sentence.token_type_ids[:MOST_PIECES])


def names(tokenizer: Tokenizer, sentence: Encoded) -> list[str]:
    """Its word pieces."""
    return [tokenizer.id_to_token(int(id)) for id in sentence.input_ids]


# ------------------------------------------------------------------------------------------------------------------ layers


def compared(sentences: Sequence[Encoded]) -> list[Encoded]:
    """The first sentences, as many as layers are compared over."""
    tokens = np.cumsum([len(sentence.input_ids) for sentence in sentences])
    return list(sentences[: max(1, min(COMPARED_SENTENCES, int((tokens <= COMPARED_TOKENS).sum())))])


def hidden_states(model: Bert, sentences: Sequence[Encoded]) -> list[np.ndarray]:
    """hidden[0…M] of all tokens of the sentences, (T, d) each."""
    found: list[list[np.ndarray]] = [[] for _ in range(model.config.num_hidden_layers + 1)]
    for sentence in sentences:
        trace, _ = model.forward(sentence.input_ids[None], token_type_ids=_segments(model, sentence)[None])
        for own, H in zip(found, trace.hidden or (), strict=True):
            own.append(to_host(H)[0])
    return [np.concatenate(own) for own in found]


class Maps(NamedTuple):
    """The learned maps of a student, by the names that its file has them under, and which of them
    each of hidden[0…M] goes through ("" for none)."""

    tensors: Mapping[str, np.ndarray]
    of_layer: list[str]


def read_maps(student: str, recipe: Recipe, layers: int) -> Maps:
    """Of the directory of a student that the intermediate step or general distillation left: in a file
    of their own where its weights are gone (training/left.py). None where both are."""
    own, model = Path(student) / MAPS, Path(student) / "model.safetensors"
    tensors: Mapping[str, np.ndarray] = load_file(own) if own.is_file() else weights.read(student).tensors if model.exists() else {}
    tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("fit_dense")}
    names = projection_names(recipe.projection, layers)
    return Maps(tensors, [name if f"{name}.weight" in tensors else "" for name in names] or [""] * (layers + 1))


def distances(student: Sequence[np.ndarray], teacher: Sequence[np.ndarray], maps: Maps) -> np.ndarray:
    """(M+1, N+1): the paper's hidden loss (equation 8), a mean over tokens and width, of each student
    layer with each teacher layer, through the map that the student layer was learned with. NaN where
    there is none and the widths differ."""
    found = np.full((len(student), len(teacher)), np.nan)
    for m, (H_S, name) in enumerate(zip(student, maps.of_layer, strict=True)):
        W, b = (maps.tensors.get(f"{name}{ending}") for ending in (".weight", ".bias"))
        for n, H_T in enumerate(teacher):
            if (W is not None and W.shape == (H_T.shape[-1], H_S.shape[-1])) or (W is None and H_S.shape == H_T.shape):
                found[m, n] = hidden.forward(H_S, H_T, W, b)[0]
    return found


def alignments(student: Sequence[np.ndarray], teacher: Sequence[np.ndarray]) -> np.ndarray:
    """(M+1, N+1): linear centred kernel alignment (Kornblith et al. 2019, section 3) of each student
    layer X (T, d′) with each teacher layer Y (T, d):

        CKA(X, Y) = ‖Yᵀ X‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖)      columns centred, Frobenius norms

    1 where one is the other turned and scaled, 0 where no direction of one goes with one of the
    other, and for what does not vary.
    """
    centred = [[a.astype(np.float64) - a.mean(axis=0, dtype=np.float64) for a in side] for side in (student, teacher)]
    norms = [[float(np.linalg.norm(a.T @ a)) for a in side] for side in centred]
    found = np.zeros((len(student), len(teacher)))
    for m, (X, norm_X) in enumerate(zip(centred[0], norms[0], strict=True)):
        for n, (Y, norm_Y) in enumerate(zip(centred[1], norms[1], strict=True)):
            found[m, n] = np.linalg.norm(Y.T @ X) ** 2 / (norm_X * norm_Y) if norm_X * norm_Y > 0 else 0.0
    return found


# -------------------------------------------------------------------------------------------------------------------- maps


_MOST_ENTRIES = 512  # rows, and columns, of a picture


class Picture(NamedTuple):
    """A map W (d, d′): its singular values, largest first; and its entries as a picture, (r, c) int8
    in units of largest/127, every so many rows and columns where it has more than _MOST_ENTRIES."""

    name: str
    shape: tuple[int, int]
    singular_values: np.ndarray
    entries: np.ndarray
    largest: float


def picture(name: str, W: np.ndarray) -> Picture:
    W = np.asarray(W, np.float64)
    rows, columns = (-(-size // _MOST_ENTRIES) for size in W.shape)
    seen, largest = W[::rows, ::columns], float(np.abs(W).max())
    entries = np.rint(seen * (127 / largest if largest else 0)).astype(np.int8)
    return Picture(name, W.shape, np.linalg.svd(W, compute_uv=False), entries, largest)


def check_pair(student: Bert, teacher: Bert) -> None:
    """InputError where they do not read the same ids, and nothing of them can be put side by side."""
    assert array_module(student.parameters.flat) is array_module(teacher.parameters.flat)
    Tokenizer.load(student.tokenizer_files).check_same_vocabulary(Tokenizer.load(teacher.tokenizer_files))
    if student.config.num_hidden_layers < 1 or teacher.config.num_hidden_layers < 1:
        raise InputError("a model without layers has no attention to be looked at")


def five_digits(values: Sequence[float]) -> list[float | None]:
    """To five digits; None for NaN."""
    return [None if value != value else float(f"{value:.5g}") for value in values]
