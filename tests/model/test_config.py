"""Configurations: what is read, what is refused, and that a round trip changes nothing."""

import pytest

from minitinybert.commands.shape import parse_shape
from minitinybert.errors import InputError
from minitinybert.model.config import HEADS, Config

SIZES = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.parametrize("head", HEADS)
def test_round_trip(head):
    settings = {"pooler": head in ("none", "classifier"), "null_threshold": 0.5}
    config = Config(head=head, **settings, id2label={0: "no", 1: "yes", 2: "perhaps"}, hidden_act="gelu_new")
    assert Config.from_hf(config.to_hf()) == config


@pytest.mark.parametrize(
    "change, words",
    [
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"hidden_size": "8"}, "hidden_size is '8'"),
        ({"num_attention_heads": 3}, "not a multiple of num_attention_heads 3"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob is 1.0"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "decoder"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(change, words):
    with pytest.raises(InputError) as error:
        Config.from_hf({**SIZES, **change})
    assert words in str(error.value)


def test_shapes():
    config = Config(**parse_shape("4L-312D-12H-1200F"))
    assert config.shape == "4L-312D-12H-1200F"
    for bad in ("4L-312D-12H", "", "tiny", "4L-312D-12H-1200F-2X"):
        with pytest.raises(InputError, match="4L-312D-12H-1200F"):
            parse_shape(bad)
