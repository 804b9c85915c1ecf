"""The flat layout: every tensor its own place, decay first, q k v adjacent, sizes as the paper counts them."""

import numpy as np
import pytest

from minitinybert.commands.shape import parse_shape
from minitinybert.model.bert import layout
from minitinybert.model.config import Config
from minitinybert.model.parameters import Layout, Parameters, Slot

SMALL = Config(vocab_size=11, hidden_size=6, num_hidden_layers=2, num_attention_heads=2, intermediate_size=10, head="classifier")


def test_views_cover_the_array_without_overlap():
    parameters = Parameters.zeros(layout(SMALL), np.float64)
    for name in parameters:
        parameters[name][...] += 1
    assert parameters.flat.max() == 1
    assert parameters.flat.sum() == parameters.layout.count == sum(parameters[name].size for name in parameters)


def test_decay_comes_first_and_is_neither_bias_nor_layer_norm():
    parameters = Parameters.zeros(layout(SMALL))
    parameters.flat[: parameters.layout.decay_end] = 1
    for name in parameters:
        decays = not (name.endswith("bias") or "LayerNorm" in name)
        assert (parameters[name] == decays).all(), name


def test_query_key_value_are_one_matrix():
    parameters = Parameters.zeros(layout(SMALL))
    prefix = "bert.encoder.layer.1.attention.self."
    for i, name in enumerate(("query", "key", "value")):
        parameters[f"{prefix}{name}.weight"][...] = i
        parameters[f"{prefix}{name}.bias"][...] = i
    assert parameters[prefix + "qkv.weight"][:, 0].tolist() == np.repeat([0, 1, 2], 6).tolist()
    assert parameters[prefix + "qkv.bias"].tolist() == np.repeat([0, 1, 2], 6).tolist()
    assert prefix + "qkv.weight" not in list(parameters)


def test_names_are_found_with_and_without_their_prefix():
    parameters = Parameters.zeros(layout(SMALL))
    assert parameters["encoder.layer.0.output.dense.weight"] is parameters["bert.encoder.layer.0.output.dense.weight"]
    assert "pooler.dense.bias" in parameters and "bert.nothing" not in parameters
    with pytest.raises(KeyError):
        parameters["nothing"]


@pytest.mark.parametrize(
    "shape, count", [("12L-768D-12H-3072F", 109_482_240), ("4L-312D-12H-1200F", 14_350_248), ("6L-768D-12H-3072F", 66_955_008)]
)
def test_parameter_counts_are_the_paper_s(shape, count):
    assert layout(Config(**parse_shape(shape))).count == count


def test_for_reading_has_the_same_values_column_by_column():
    layout = Layout(
        [
            Slot("embeddings.word_embeddings.weight", (5, 4)),
            Slot("qkv.weight", (6, 4), ("q.weight", "k.weight", "v.weight")),
            Slot("b.bias", (3,)),
        ]
    )
    parameters = Parameters.zeros(layout)
    parameters.flat[...] = np.arange(layout.size)
    copy = parameters.for_reading()
    for name in ("embeddings.word_embeddings.weight", "qkv.weight", "q.weight", "v.weight", "b.bias"):
        assert np.array_equal(copy[name], parameters[name])
    assert copy["qkv.weight"].T.flags.c_contiguous and np.shares_memory(copy["k.weight"], copy["qkv.weight"])
    assert np.shares_memory(copy["qkv.weight"], copy.flat) and not np.shares_memory(copy.flat, parameters.flat)
    assert copy.for_reading() is copy
