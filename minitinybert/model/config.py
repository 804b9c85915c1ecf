"""A BERT's configuration: the keys of Hugging Face's config.json that decide what is computed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import InputError

HEADS = {"none": "BertModel", "classifier": "BertForSequenceClassification", "mlm": "BertForMaskedLM"}
_SHAPE = re.compile(r"(\d+)L-(\d+)D-(\d+)H-(\d+)F", re.IGNORECASE | re.ASCII)
_GELU = {"gelu": "none", "gelu_python": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


@dataclass(frozen=True)
class Config:
    """Sizes and switches, by their Hugging Face names; the defaults are BERT-base's. `head`: "none", "classifier" or "mlm"."""

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
    def gelu_approximation(self) -> str:
        """What ops.gelu is told: "none" or "tanh"."""
        return _GELU[self.hidden_act]

    @property
    def shape(self) -> str:
        """The sizes on one line: 4L-312D-12H-1200F."""
        return f"{self.num_hidden_layers}L-{self.hidden_size}D-{self.num_attention_heads}H-{self.intermediate_size}F"

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], where: str = "config.json") -> Config:
        """From a parsed config.json. InputError for what is not a BERT as computed here, and for missing sizes."""
        if raw.get("model_type", "bert") not in ("bert", "tinybert"):
            raise InputError(f"{where}: model_type is {raw['model_type']!r}; only bert can be read")
        if raw.get("position_embedding_type", "absolute") != "absolute":
            raise InputError(f"{where}: position_embedding_type {raw['position_embedding_type']!r}; only absolute can be read")
        if raw.get("is_decoder") or raw.get("add_cross_attention"):
            raise InputError(f"{where}: a decoder; only encoders can be read")
        names = {f.name for f in fields(cls)} - {"head", "pooler", "id2label"}
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        for name in sizes:
            if not isinstance(raw.get(name), int) or raw[name] < (0 if name == "num_hidden_layers" else 1):
                raise InputError(f"{where}: {name} is {raw.get(name)!r}; a BERT configuration needs it as a whole number")
        known = {name: raw[name] for name in names if name in raw}
        architecture = (raw.get("architectures") or ["BertModel"])[0]
        head = {v: k for k, v in HEADS.items()}.get(architecture, "mlm" if architecture == "BertForPreTraining" else "none")
        return cls(**known, id2label=_labels(raw), head=head, pooler=head != "mlm")

    def to_hf(self) -> dict[str, Any]:
        """As a config.json that transformers reads."""
        raw = {k: v for k, v in asdict(self).items() if k not in ("head", "pooler")}
        raw["id2label"] = {str(i): name for i, name in self.id2label.items()}
        raw["label2id"] = {name: i for i, name in self.id2label.items()}
        return {"model_type": "bert", "architectures": [HEADS[self.head]], **raw}


def _labels(raw: Mapping[str, Any]) -> dict[int, str]:
    if raw.get("id2label"):
        return {int(i): str(name) for i, name in sorted(raw["id2label"].items(), key=lambda item: int(item[0]))}
    return {i: f"LABEL_{i}" for i in range(int(raw.get("num_labels", 2)))}


def parse_shape(shape: str) -> dict[str, Any]:
    """ "4L-312D-12H-1200F" as the four sizes by their config names. InputError where it is not of that form."""
    match = _SHAPE.fullmatch(shape.strip())
    if not match:
        raise InputError(f"{shape!r} is neither a model directory nor a shape such as 4L-312D-12H-1200F")
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    sizes = dict(zip(names, map(int, match.groups()), strict=True))
    if not all(sizes.values()):
        raise InputError(f"{shape}: layers, width, heads and feed-forward width are 1 at least")
    return sizes


def is_shape(text: str) -> bool:
    """Whether it begins as shapes do, and is no directory: then `parse_shape` says what is wrong with the rest."""
    return re.match(r"\s*\d+L", text, re.IGNORECASE | re.ASCII) is not None and not Path(text).exists()
