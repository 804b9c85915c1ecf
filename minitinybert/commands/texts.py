"""A classifier asked of texts: `minitinybert.Classifier`, which is loaded once, and what `predict`
says of them.

    classify = Classifier("student")
    classify(["a gripping film", "a dull one"])             # [Answer('1', 0.98, …), Answer('0', 0.95, …)]
    classify([("a question", "a sentence"), …])             # pairs
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ..data.batching import EncodedExamples
from ..data.glue import Examples, Task
from ..data.text import on_one_line
from ..data.tokenizer import Tokenizer
from ..engine.device import to_host
from ..errors import InputError, as_function
from ..machine import Machine
from ..model.bert import Bert
from ..model.config import TOKEN_MAPS
from ..model.trace import Trace
from ..ops import softmax
from ..training import evaluation
from .classifiers import answer_kind
from .keywords import options
from .task_data import check_length, encode

Text = str | tuple[str, str]  # a text, or a pair of them


@dataclass(frozen=True)
class Answer:
    """What a classifier says of one text.

    label           the most probable one; None of a regression
    probability     of it, as a softmax has it; of a multi-label model each label's own, as a sigmoid has it
    probabilities   of every label, in the order of the model's outputs
    labels          all that hold: `label` alone; of a multi-label model those more probable than not, perhaps none
    score           a regression's number, None of other models
    """

    label: str | None
    probability: float | None
    probabilities: Mapping[str, float]
    labels: Sequence[str] = field(default=(), repr=False)
    score: float | None = field(default=None, repr=False)
    text: Text = field(default="", repr=False)

    def __repr__(self) -> str:
        if self.score is not None:
            return f"Answer(score={self.score:.4f})"
        shares = ", ".join(f"{name!r}: {p:.4f}" for name, p in self.probabilities.items())
        return f"Answer({self.label!r}, {self.probability:.4f}, {{{shares}}})"


class Classifier:
    """A classifier or regression of texts, loaded once.

    model: a directory in Hugging Face's layout or an id; max_length: word pieces that a text, or a
    pair, is cut to (without it 128, or the model's positions where these are fewer); device,
    threads: as the command line's. InputError where the model is none of texts: what looks at each
    word, or answers questions, `minitinybert.predict` asks.

    Texts are a list of strings, or of tuples of two strings, for pairs; a string alone is a list of
    one. Long lists are asked in batches of about equal length, on all threads; threads of a program
    that call one Classifier take turns.
    """

    def __init__(self, model: str | Path, *, max_length: int | None = None, device: str = "cpu", threads: int | None = None):
        with as_function(options()):
            self.path, self._machine, self._turn = str(model), Machine(device, threads), Lock()
            loaded = Bert.load(model)
            if loaded.config.head in TOKEN_MAPS:
                raise InputError(f"{model}: a model of {loaded.config.head}, not of whole texts; ask it by minitinybert.predict")
            self._kind = answer_kind(loaded.config, self.path)
            self.max_length = max_length or min(Task.max_length, loaded.config.max_position_embeddings)
            check_length(self.max_length, loaded.config)
            self._words = Tokenizer.load(loaded.tokenizer_files)
            self._words.check_fits(loaded.config.vocab_size)
            self._model = loaded.to(self._machine.xp).for_reading()

    @property
    def labels(self) -> list[str]:
        """The names of the model's outputs, in their order."""
        return self._model.config.labels

    def __call__(self, texts: Text | Sequence[Text]) -> list[Answer]:
        """An answer to each text, in their order. InputError for what is no text, and for pairs
        among texts that are none."""
        texts = as_texts(texts)
        return answers(texts, self.logits(texts), self._model, self._kind)

    def logits(self, texts: Text | Sequence[Text]) -> np.ndarray:
        """(n, C) float32, before softmax."""
        with as_function(options()):
            encoded = self._encoded(texts)
            if not len(encoded):
                return np.empty((0, self._model.config.num_labels), np.float32)
            with self._turn, self._machine as machine:
                return evaluation.logits(self._model, encoded, machine.workers)

    def trace(self, texts: Text | Sequence[Text]) -> Trace:
        """What distillation looks at: hidden M+1 × (n, L, d), scores M × (n, h, L, L), pooled (n,
        d), logits (n, C), on the host. Shorter texts are padded behind their word pieces to the
        longest, of L; how many each has, `tokens` says."""
        with as_function(options()):
            encoded = self._encoded(texts)
            if not len(encoded):
                raise InputError("no text: a trace is of one at least")
            length = max(map(len, encoded.input_ids))
            padded = lambda rows, fill: np.stack([np.pad(row, (0, length - len(row)), constant_values=fill) for row in rows])
            ids, types = padded(encoded.input_ids, self._words.pad_id), padded(encoded.token_type_ids, 0)
            mask = padded([np.ones_like(row) for row in encoded.input_ids], 0)
            with self._turn, self._machine:
                seen, _ = self._model.forward(ids, mask, types)
        host = lambda arrays: [to_host(array) for array in arrays or ()]
        embedding, pooled, logits = host([seen.embedding, seen.pooled, seen.logits])
        return Trace(embedding, host(seen.hidden), host(seen.scores), pooled, logits)

    def attentions(self, text: Text) -> np.ndarray:
        """What each word piece of one text looks at: softmax of the scores, (M, h, L, L). Row i of
        the last two axes are the weights of piece i, whose sum is 1; `tokens` names the pieces."""
        return np.stack([softmax.forward(scores)[0][0] for scores in self.trace([text]).scores or ()])

    def tokens(self, text: Text) -> list[str]:
        """The L word pieces of one text as the model sees it, [CLS] and [SEP] among them."""
        with as_function(options()):
            (ids,) = self._encoded([text]).input_ids
        return [self._words.id_to_token(int(id)) for id in ids]

    def _encoded(self, texts: Text | Sequence[Text]) -> EncodedExamples:
        return encode_texts(as_texts(texts), self._words, self._model, self.max_length)

    def __repr__(self) -> str:
        answers = "a number" if self._kind == "score" else f"{self._kind} {', '.join(self.labels)}"
        return f"Classifier({self.path!r}: {answers}; {self._model.config.shape})"


def as_texts(texts: Text | Sequence[Text]) -> list[Text]:
    """A list of texts, or of pairs; a string alone is a list of one. InputError for what is none."""
    if isinstance(texts, str):
        return [texts]
    try:
        given: list[Any] = list(texts)
    except TypeError:
        raise InputError(f"{texts!r:.60}: a list of texts is needed") from None
    for number, text in enumerate(given):
        pair = isinstance(text, (tuple, list)) and len(text) == 2 and all(isinstance(half, str) for half in text)
        if not (pair or isinstance(text, str)):
            raise InputError(f"text {number} is {text!r:.60}; a string is needed, or for a pair a tuple of two")
    return [text if isinstance(text, str) else (text[0], text[1]) for text in given]


def encode_texts(texts: Sequence[Text], words: Tokenizer, model: Bert, max_length: int) -> EncodedExamples:
    """Texts, or pairs, as the model's ids; a blank text is of either kind. InputError where both
    are there; a warning where the vocabulary does not know them."""
    halves = [(text, "") if isinstance(text, str) else text for text in texts]
    kinds = {isinstance(text, str) for text in texts if not isinstance(text, str) or text.strip()}
    if len(kinds) > 1:
        raise InputError("some texts are pairs and some are not; give one kind at a time")
    pairs = [second.strip() for _, second in halves] if kinds == {False} else None
    examples = Examples([first.strip() for first, _ in halves], pairs, None, list(range(1, len(texts) + 1)), Path("<arguments>"))
    encoded = encode(examples, words, max_length, model.config.type_vocab_size)
    words.check_known(encoded.input_ids, "the texts", must=False)
    return encoded


def answers(texts: Sequence[Text], logits: np.ndarray, model: Bert, kind: str) -> list[Answer]:
    """logits (n, C) in words; kind: `classifiers.answer_kind`'s."""
    x = logits.astype(np.float64)
    if kind == "score":
        return [Answer(None, None, {}, (), float(number), text) for number, text in zip(x[:, 0], texts, strict=True)]
    shares = np.exp(-np.logaddexp(0.0, -x)) if kind == "labels" else softmax.forward(x)[0]
    names, found = model.config.labels, []
    for text, z, p in zip(texts, x, shares, strict=True):
        best = int(p.argmax())
        holding = tuple(name for name, logit in zip(names, z, strict=True) if logit > 0) if kind == "labels" else (names[best],)
        found.append(Answer(names[best], float(p[best]), dict(zip(names, p.tolist(), strict=True)), holding, None, text))
    return found


def as_json(answer: Answer, text: str, kind: str) -> dict[str, Any]:
    """An answer as `predict --json` prints it."""
    if kind == "score":
        return {"text": text, "score": answer.score}
    probabilities = {name: round(p, 6) for name, p in answer.probabilities.items()}
    label = {"labels": list(answer.labels)} if kind == "labels" else {"label": answer.label}
    return {"text": text, **label, "probabilities": probabilities}


def said(answer: Mapping[str, Any]) -> str:
    """One of `predict`'s answers on a line: the label and its probability, each label of several
    and its own, or the number; then the text."""
    if "score" in answer:
        line = f"{answer['score']:.4f}"
    elif "label" in answer:
        line = f"{answer['label']}\t{answer['probabilities'][answer['label']]:.4f}"
    else:
        line = ", ".join(f"{label} {answer['probabilities'][label]:.4f}" for label in answer["labels"]) or "none"
    return f"{line}\t{on_one_line(answer['text'])}"
