"""A model's configuration as Hugging Face's config.json has it: names, labels, which head.

Types and ranges of the fields are model/config.py's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from reprlib import repr as brief  # of what a file holds, however much or deep that is
from typing import Any

import numpy as np

from ..errors import InputError

HEADS = {  # their architectures
    "none": "BertModel", "classifier": "BertForSequenceClassification", "mlm": "BertForMaskedLM",
    "tokens": "BertForTokenClassification", "spans": "BertForQuestionAnswering",
}  # fmt: skip
WITH_RELU = "TinyBertForSequenceClassification"  # the released code's name; transformers has no class that computes it
_PRETRAINING = "BertForPreTraining"  # words, and whether a sentence follows, which no model here says
# Of transformers' other heads the encoder is read. Their tensors may have a classifier's names, and are none of one text's.
_OTHERS = ("BertForMultipleChoice", "BertForNextSentencePrediction", "BertLMHeadModel")
_HEAD_OF = {**{name: head for head, name in HEADS.items()}, _PRETRAINING: "mlm", WITH_RELU: "classifier", **dict.fromkeys(_OTHERS, "none")}
_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_MOST_LABELS = 100_000


def read_fields(raw: Mapping[str, Any], where: str, names: Iterable[str]) -> dict[str, Any]:
    """Those of the fields `names` that a parsed config.json has (one that is null is left out), and
    id2label, head and pooler.

    InputError for what is not a BERT as computed here, for missing sizes, and for labels or
    architectures of another form.
    """
    raw = {name: value for name, value in raw.items() if value is not None}
    if raw.get("model_type", "bert") not in ("bert", "tinybert"):
        raise InputError(f"{where}: model_type is {brief(raw['model_type'])}; only bert can be read")
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise InputError(f"{where}: position_embedding_type {brief(raw['position_embedding_type'])}; only absolute can be read")
    if raw.get("is_decoder") or raw.get("add_cross_attention"):
        raise InputError(f"{where}: a decoder; only encoders can be read")
    for name in _SIZES:
        if name not in raw:
            raise InputError(f"{where}: {name} is None; a BERT configuration needs it as a whole number")
    named = architecture(raw, where)
    head = _HEAD_OF.get(named, "none")
    known = {name: raw[name] for name in names if name in raw}
    if named == WITH_RELU:
        known.setdefault("classifier_relu", True)
    labels = {0: "LABEL_0", 1: "LABEL_1"} if head == "spans" else _labels(raw, where)  # a beginning's logit, and an end's
    return {**known, "id2label": labels, "head": head, "pooler": head in ("none", "classifier")}


def write_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as a config.json that transformers reads. With classifier_relu it says another
    model_type: transformers' automatic classes then refuse it, and BertForSequenceClassification,
    whose logits are others, warns."""
    raw = {name: value for name, value in fields.items() if name not in ("head", "pooler")}
    raw["id2label"] = {str(i): name for i, name in fields["id2label"].items()}
    raw["label2id"] = {name: i for i, name in fields["id2label"].items()}
    relu = fields["head"] == "classifier" and fields["classifier_relu"]
    kind, architecture = ("tinybert", WITH_RELU) if relu else ("bert", HEADS[fields["head"]])
    return {"model_type": kind, "architectures": [architecture], **raw}


def architecture(raw: Mapping[str, Any], where: str) -> str:
    """The first of a config.json's architectures, "" where there is none. InputError where they are
    no names."""
    named = raw.get("architectures") or []
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise InputError(f'{where}: architectures is {brief(named)}; a list of names such as ["{HEADS["classifier"]}"] is needed')
    return named[0] if named else ""


def completed(raw: Mapping[str, Any], tensors: Mapping[str, np.ndarray], where: str) -> dict[str, Any]:
    """A parsed config.json with what it leaves out, as the tensors (by canonical name) tell it: the
    model's type, its head, and the labels of a classifier.

    A head is left out where the name is none of transformers', and where it is one whose tensors
    are not there while another's are: the configuration of the model that training began with is
    often beside what it ended as. A classifier without a pooler is one of tokens.
    """
    config = {name: value for name, value in raw.items() if value is not None or name not in ("model_type", "id2label", "num_labels")}
    words, classes = "cls.predictions.transform.dense.weight" in tensors, "classifier.weight" in tensors
    pooled = "bert.pooler.dense.weight" in tensors
    # In the order in which they are guessed; older models of tokens have a pooler, too.
    told = {"classifier": classes and pooled, "tokens": classes, "spans": "qa_outputs.weight" in tensors, "mlm": words}
    said = _HEAD_OF.get(architecture(raw, where))
    others = [head for head in told if told[head] and (said, head) != ("classifier", "tokens")]  # where the pooler is lost, that is said
    if said is None or (said in told and not told[said] and others):
        pretraining = words and "cls.seq_relationship.weight" in tensors
        head = others[0] if others else "none"
        relu = head == "classifier" and "fit_dense.weight" in tensors  # the released code's students
        config = {**config, "architectures": [_PRETRAINING if head == "mlm" and pretraining else WITH_RELU if relu else HEADS[head]]}
    if classes and not config.keys() & {"id2label", "num_labels"}:
        labels = [f"LABEL_{i}" for i in range(min(len(np.atleast_1d(tensors["classifier.weight"])), _MOST_LABELS))]
        config |= {"id2label": {str(i): label for i, label in enumerate(labels)}, "label2id": {label: i for i, label in enumerate(labels)}}
    named = architecture(config, where)
    if named == WITH_RELU or (config.get("classifier_relu") and named == HEADS["classifier"]):
        config |= {"model_type": "tinybert", "architectures": [WITH_RELU], "classifier_relu": config.get("classifier_relu", True)}
    return {"model_type": "bert", **config}


def _labels(raw: Mapping[str, Any], where: str) -> dict[int, str]:
    """id2label, whose keys are the classifier's outputs 0, 1, …; or LABEL_0, … of num_labels."""
    given = raw.get("id2label")
    if given is None or given == {}:
        count = raw.get("num_labels", 2)
        if type(count) is not int or not 1 <= count <= _MOST_LABELS:
            raise InputError(f"{where}: num_labels is {brief(count)}; a whole number from 1 to {_MOST_LABELS} is needed")
        return {i: f"LABEL_{i}" for i in range(count)}
    form = '{"0": "negative", "1": "positive"}'
    if not isinstance(given, dict) or not all(isinstance(name, (str, int, float)) for name in given.values()):
        raise InputError(f"{where}: id2label is {brief(given)}; each output's number and its label are needed, as {form}")
    numbers = [int(key) if re.fullmatch(r"\d{1,7}", str(key), re.ASCII) else -1 for key in given]
    if sorted(numbers) != list(range(len(given))):
        keys = ", ".join(map(str, given))
        raise InputError(f"{where}: id2label has the keys {brief(keys)}; the outputs' numbers from 0 on are needed, as {form}")
    return {i: str(name) for i, name in sorted(zip(numbers, given.values(), strict=True))}
