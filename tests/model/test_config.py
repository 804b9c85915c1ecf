"""Configurations: what is read, what is refused, and that a round trip changes nothing."""

import time
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitinybert.commands.shape import parse_shape
from minitinybert.errors import InputError
from minitinybert.model.bert import Bert
from minitinybert.model.config import HEADS, Config

SIZES = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
DEEP: list = []
for _ in range(900):
    DEEP = [DEEP]
NUMBERS = [f.name for f in fields(Config) if isinstance(f.default, int | float) and not isinstance(f.default, bool)]


@pytest.mark.parametrize("head", HEADS)
def test_round_trip(head):
    settings = {"pooler": head in ("none", "classifier"), "null_threshold": 0.5}
    labels = {0: "no", 1: "yes", 2: "perhaps"} if head != "spans" else {0: "LABEL_0", 1: "LABEL_1"}  # a beginning, an end
    config = Config(head=head, **settings, id2label=labels, hidden_act="gelu_new")
    assert Config.from_hf(config.to_hf()) == config


def test_a_relu_before_the_classifier_is_said_in_a_way_that_transformers_heeds():
    """BertForSequenceClassification has none: the model's type is another one then."""
    config = Config(head="classifier", classifier_relu=True)
    raw = config.to_hf()
    assert (raw["model_type"], raw["architectures"]) == ("tinybert", ["TinyBertForSequenceClassification"])
    assert Config.from_hf(raw) == config
    del raw["classifier_relu"]  # as whoever else writes that name
    assert Config.from_hf(raw) == config
    plain = Config(head="none", classifier_relu=True).to_hf()
    assert (plain["model_type"], plain["architectures"]) == ("bert", ["BertModel"])
    transformers = pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="tinybert"):
        transformers.AutoConfig.for_model(config.to_hf()["model_type"])


@pytest.mark.parametrize(
    "change, words",
    [
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"model_type": ["bert"]}, "model_type is ['bert']"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"hidden_size": "8"}, "hidden_size is '8'"),
        ({"hidden_size": 8.0}, "hidden_size is 8.0"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"num_hidden_layers": 10**30}, "num_hidden_layers is 1000000000000000000000000000000; a whole number from 0 to 1000"),
        ({"num_attention_heads": 3}, "not a multiple of num_attention_heads 3"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; one of gelu, gelu_python, gelu_new, gelu_pytorch_tanh"),
        ({"hidden_act": {"0": ["a"]}}, "hidden_act is {'0': ['a']}"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob is 1.0"),
        ({"classifier_dropout": "0.1"}, "classifier_dropout is '0.1'"),
        ({"type_vocab_size": -(2**63)}, "type_vocab_size is -9223372036854775808"),
        ({"max_position_embeddings": 0}, "max_position_embeddings is 0"),
        ({"layer_norm_eps": "1e-12"}, "layer_norm_eps is '1e-12'; a number from 0 to 1"),
        ({"layer_norm_eps": [None]}, "layer_norm_eps is [None]"),
        ({"initializer_range": float("nan")}, "initializer_range is nan"),
        ({"initializer_range": {"a": {}}}, "initializer_range is {'a': {}}"),
        ({"pad_token_id": "[PAD]"}, "pad_token_id is '[PAD]'"),
        ({"problem_type": "multi_label"}, "problem_type is 'multi_label'; one of regression, single_label_classification"),
        ({"classifier_relu": 1}, "classifier_relu is 1; true or false"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "decoder"),
        ({"num_labels": "3"}, "num_labels is '3'"),
        ({"num_labels": 10**12}, "num_labels is 1000000000000"),
        ({"id2label": ["a", "b"]}, "id2label is ['a', 'b']; each output's number and its label"),
        ({"id2label": {"0": None}}, "id2label is {'0': None}"),
        ({"id2label": {"a": 0, "b": 1}}, "id2label has the keys 'a, b'; the outputs' numbers from 0 on"),
        ({"id2label": {"1": "a", "10": "b"}}, "id2label has the keys '1, 10'"),
        ({"id2label": {"0": "a", "00": "b"}}, "id2label has the keys '0, 00'"),
        ({"architectures": 5}, "architectures is 5"),
        ({"hidden_act": DEEP}, "hidden_act is [[[[[[[...]]]]]]]; one of"),
        ({"id2label": DEEP}, "id2label is [[[[[[[...]]]]]]]; each"),
        ({"architectures": DEEP}, "architectures is [[[[[[[...]]]]]]]; a list"),
        ({"pad_token_id": "x" * 10**6}, "pad_token_id is 'xxxxxxxxxxxx...xxxxxxxxxxxxx'"),
        ({"architectures": [["BertForMaskedLM"]]}, "architectures is [['BertForMaskedLM']]"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(change, words):
    with pytest.raises(InputError) as error:
        Config.from_hf({**SIZES, **change}, "some/config.json")
    assert str(error.value).startswith("some/config.json: ") and words in str(error.value)


def test_null_is_left_out_and_a_name_is_a_list_of_one():
    raw = {**SIZES, **dict.fromkeys(["hidden_dropout_prob", "type_vocab_size", "id2label", "num_labels", "model_type", "hidden_act"])}
    assert Config.from_hf(raw) == Config.from_hf(SIZES) == Config(**SIZES)
    assert Config.from_hf({**SIZES, "architectures": "BertForMaskedLM"}).head == "mlm"
    assert Config.from_hf({**SIZES, "architectures": []}).head == "none"
    assert Config.from_hf({**SIZES, "num_labels": 3}).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert Config.from_hf({**SIZES, "id2label": {"1": 5, "0": "five"}}).id2label == {0: "five", 1: "5"}


def test_a_program_s_values_are_held_to_the_same_table():
    assert Config(hidden_size=np.int64(24), layer_norm_eps=np.float32(1e-6), hidden_dropout_prob=0).hidden_size == 24
    with pytest.raises(InputError, match=r"^config: hidden_dropout_prob is nan; a number from 0 to 0.99 is needed$"):
        Config(hidden_dropout_prob=float("nan"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["gelu", "BertForMaskedLM", 2**63]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("012a") | st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*Config().to_hf(), "num_labels"]), json_values, min_size=1, max_size=4))
def test_whatever_a_config_holds_it_is_read_or_refused_on_one_line(change):
    try:
        config = Config.from_hf({**Config(**SIZES).to_hf(), **change})
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 300
        return
    assert all(np.isfinite(getattr(config, name)) for name in NUMBERS)
    assert Config.from_hf(config.to_hf()) == config


def test_shapes():
    config = Config(**parse_shape("4L-312D-12H-1200F"))
    assert config.shape == "4L-312D-12H-1200F"
    for bad in ("4L-312D-12H", "", "tiny", "4L-312D-12H-1200F-2X", f"4L-{'9' * 5000}D-12H-1200F"):
        with pytest.raises(InputError, match="4L-312D-12H-1200F"):
            parse_shape(bad)


@pytest.mark.parametrize("shape", ["999999999L-8D-2H-8F", "2L-999999999D-1H-8F", "1000L-1048576D-2H-8F", "1L-8D-2H-999999999F"])
def test_sizes_that_no_machine_has_are_refused_at_once(shape):
    start = time.process_time()
    with pytest.raises(InputError, match=r"^config: (\w+ is \d+; a whole number from|1000L-1048576D.* this machine has)"):
        Bert.new(replace(Config(**SIZES), **parse_shape(shape)))
    assert time.process_time() - start < 1
