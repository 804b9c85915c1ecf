"""A BERT's configuration: the keys of Hugging Face's config.json that decide what is computed.

The declarations of `Config` are the one table of field, type, range and default, which whatever
makes a Config is held to: a config.json, a shape on the command line, a program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from reprlib import repr as brief  # of what a file holds, however much or deep that is
from typing import Any

from ..errors import InputError
from ..weights import hf_config
from ..weights.hf_config import HEADS

TOKEN_MAPS = {"tokens": "classifier", "spans": "qa_outputs"}  # a head that looks at every token, and the name of its linear map
_GELU = {"gelu": "none", "gelu_python": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
_PROBLEMS = (None, "regression", "single_label_classification", "multi_label_classification")


def _needs(words: str, holds: Callable[[Any], bool], default: Any) -> Any:
    """A field whose values `holds` is true of; `words` say which those are."""
    return field(default=default, metadata={"words": words, "holds": holds})


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)  # Python's bools are numbers


def _whole(default: int, least: int, most: int) -> Any:
    holds = lambda value: _is(Integral, value) and least <= value <= most
    return _needs(f"a whole number from {least} to {most}", holds, default)


def _number(default: float | None, least: float, most: float, or_none: bool = False) -> Any:
    within = lambda value: _is(Real, value) and least <= value <= most
    return _needs(f"a number from {least} to {most}", lambda value: (or_none and value is None) or within(value), default)


def _one_of(default: str | None, choices: tuple[str | None, ...]) -> Any:
    holds = lambda value: (value is None or isinstance(value, str)) and value in choices
    return _needs(f"one of {', '.join(filter(None, choices))}", holds, default)


def _switch(default: bool) -> Any:
    return _needs("true or false", lambda value: isinstance(value, bool), default)


@dataclass(frozen=True)
class Config:
    """Sizes and switches, by their Hugging Face names; the defaults are BERT-base's. `head`: "none",
    "classifier" of sentences, "mlm", "tokens" (labels of words) or "spans" (answers in a text).
    InputError for a value of another type, or out of its range.

    The upper ends of the ranges are far above any BERT: what a file or a slip of the pen asks
    beyond them would only take time and memory before it fails.
    """

    vocab_size: int = _whole(30522, 1, 2**31 - 1)
    hidden_size: int = _whole(768, 1, 2**20)  # d
    num_hidden_layers: int = _whole(12, 0, 1000)  # M (student), N (teacher)
    num_attention_heads: int = _whole(12, 1, 2**20)  # h
    intermediate_size: int = _whole(3072, 1, 2**24)  # f
    hidden_act: str = _one_of("gelu", tuple(_GELU))
    hidden_dropout_prob: float = _number(0.1, 0, 0.99)
    attention_probs_dropout_prob: float = _number(0.1, 0, 0.99)
    classifier_dropout: float | None = _number(None, 0, 0.99, or_none=True)  # None: hidden_dropout_prob
    max_position_embeddings: int = _whole(512, 1, 2**24)
    type_vocab_size: int = _whole(2, 1, 2**24)
    layer_norm_eps: float = _number(1e-12, 0, 1)
    initializer_range: float = _number(0.02, 0, 100)
    pad_token_id: int = _whole(0, -1, 2**31 - 1)
    id2label: Mapping[int, str] = field(default_factory=lambda: {0: "LABEL_0", 1: "LABEL_1"})
    # None: "regression" of one label, else classes; "regression": the one logit is a number
    problem_type: str | None = _one_of(None, _PROBLEMS)
    classifier_relu: bool = _switch(False)  # TinyBERT's released code: logits = classifier(relu(pooled)), no dropout between
    # Of spans: no answer where none is better than no answer by more; None: every question has one.
    null_threshold: float | None = _number(None, -1e9, 1e9, or_none=True)
    head: str = _one_of("none", tuple(HEADS))
    pooler: bool = _switch(True)

    def __post_init__(self) -> None:
        for known in fields(self):
            value = getattr(self, known.name)
            if known.metadata and not known.metadata["holds"](value):
                raise InputError(f"config: {known.name} is {brief(value)}; {known.metadata['words']} is needed")
        if self.hidden_size % self.num_attention_heads:
            raise InputError(f"config: hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}")

    def __repr__(self) -> str:
        """What differs from BERT-base."""
        base = Config()
        differing = {f.name: own for f in fields(self) if (own := getattr(self, f.name)) != getattr(base, f.name)}
        return f"Config({', '.join(f'{name}={value!r}' for name, value in differing.items())})"

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @property
    def labels(self) -> list[str]:
        """The names of the outputs, in their order."""
        return [self.id2label[i] for i in sorted(self.id2label)]

    @property
    def dropout_before_labels(self) -> float:
        """Of what a classifier of sentences or words is given."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    @property
    def gelu_approximation(self) -> str:
        """What ops.gelu is told: "none" or "tanh"."""
        return _GELU[self.hidden_act]

    @property
    def shape(self) -> str:
        """The sizes on one line: 4L-312D-12H-1200F."""
        return f"{self.num_hidden_layers}L-{self.hidden_size}D-{self.num_attention_heads}H-{self.intermediate_size}F"

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], where: str = "config.json") -> Config:
        """From a parsed config.json. InputError for what is not a BERT as computed here, for missing
        sizes, and for a value that a field cannot have."""
        known = hf_config.read_fields(raw, where, [f.name for f in fields(cls)])
        try:
            return cls(**known)
        except InputError as error:
            raise InputError(f"{where}: {str(error).removeprefix('config: ')}") from None

    def to_hf(self) -> dict[str, Any]:
        """As a config.json that transformers reads."""
        return hf_config.write_fields(asdict(self))
