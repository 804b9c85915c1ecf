"""A BERT's configuration: the keys of Hugging Face's config.json that decide what is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..errors import InputError
from ..weights import hf_config
from ..weights.hf_config import HEADS

TOKEN_MAPS = {"tokens": "classifier", "spans": "qa_outputs"}  # a head that looks at every token, and the name of its linear map
_GELU = {"gelu": "none", "gelu_python": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


@dataclass(frozen=True)
class Config:
    """Sizes and switches, by their Hugging Face names; the defaults are BERT-base's. `head`: "none",
    "classifier" of sentences, "mlm", "tokens" (labels of words) or "spans" (answers in a text)."""

    vocab_size: int = 30522
    hidden_size: int = 768  # d
    num_hidden_layers: int = 12  # M (student), N (teacher)
    num_attention_heads: int = 12  # h
    intermediate_size: int = 3072  # f
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None  # None: hidden_dropout_prob
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0
    id2label: Mapping[int, str] = field(default_factory=lambda: {0: "LABEL_0", 1: "LABEL_1"})
    problem_type: str | None = None  # "regression" where the one logit is a number
    classifier_relu: bool = False  # TinyBERT's released code: logits = classifier(relu(pooled)), no dropout between
    null_threshold: float | None = None  # of spans: no answer where none is better than no answer by more; None: every question has one
    head: str = "none"
    pooler: bool = True

    def __post_init__(self) -> None:
        if self.hidden_act not in _GELU:
            raise InputError(f"config: hidden_act {self.hidden_act!r} is not supported; choose one of {', '.join(_GELU)}")
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise InputError(f"config: hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            if not 0 <= (getattr(self, name) or 0) <= 0.99:
                raise InputError(f"config: {name} is {getattr(self, name)}; a probability from 0 to 0.99 is needed")
        if self.head not in HEADS:
            raise InputError(f"config: head {self.head!r}; choose one of {', '.join(HEADS)}")

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

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
        """From a parsed config.json. InputError for what is not a BERT as computed here, and for
        missing sizes."""
        return cls(**hf_config.read_fields(raw, where, [f.name for f in fields(cls)]))

    def to_hf(self) -> dict[str, Any]:
        """As a config.json that transformers reads."""
        return hf_config.write_fields(asdict(self))
