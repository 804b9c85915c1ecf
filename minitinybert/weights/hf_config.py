"""A model's configuration as Hugging Face's config.json has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InputError

HEADS = {  # their architectures
    "none": "BertModel", "classifier": "BertForSequenceClassification", "mlm": "BertForMaskedLM",
    "tokens": "BertForTokenClassification", "spans": "BertForQuestionAnswering",
}  # fmt: skip
_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


def read_fields(raw: Mapping[str, Any], where: str, names: Iterable[str]) -> dict[str, Any]:
    """Those of the fields `names` that a parsed config.json has, and id2label, head and pooler.

    InputError for what is not a BERT as computed here, and for missing sizes.
    """
    if raw.get("model_type", "bert") not in ("bert", "tinybert"):
        raise InputError(f"{where}: model_type is {raw['model_type']!r}; only bert can be read")
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise InputError(f"{where}: position_embedding_type {raw['position_embedding_type']!r}; only absolute can be read")
    if raw.get("is_decoder") or raw.get("add_cross_attention"):
        raise InputError(f"{where}: a decoder; only encoders can be read")
    for name in _SIZES:
        if not isinstance(raw.get(name), int) or raw[name] < (0 if name == "num_hidden_layers" else 1):
            raise InputError(f"{where}: {name} is {raw.get(name)!r}; a BERT configuration needs it as a whole number")
    architecture = (raw.get("architectures") or ["BertModel"])[0]
    head = {v: k for k, v in HEADS.items()}.get(architecture, "mlm" if architecture == "BertForPreTraining" else "none")
    known = {name: raw[name] for name in names if name in raw}
    return {**known, "id2label": _labels(raw), "head": head, "pooler": head in ("none", "classifier")}


def write_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as a config.json that transformers reads."""
    raw = {name: value for name, value in fields.items() if name not in ("head", "pooler")}
    raw["id2label"] = {str(i): name for i, name in fields["id2label"].items()}
    raw["label2id"] = {name: i for i, name in fields["id2label"].items()}
    return {"model_type": "bert", "architectures": [HEADS[fields["head"]]], **raw}


def _labels(raw: Mapping[str, Any]) -> dict[int, str]:
    if raw.get("id2label"):
        return {int(i): str(name) for i, name in sorted(raw["id2label"].items(), key=lambda item: int(item[0]))}
    return {i: f"LABEL_{i}" for i in range(int(raw.get("num_labels", 2)))}
