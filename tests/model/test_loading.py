"""From files to a model: which head, which shapes, which numbers; and that none is saved that says nothing."""

import json
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from minitinybert import weights
from minitinybert.errors import InputError
from minitinybert.model import bert as module
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config

SIZES = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
CONFIG = Config(**SIZES, max_position_embeddings=7)
MLM = replace(CONFIG, head="mlm", pooler=False)
TOKENS = replace(MLM, head="tokens", id2label={0: "O", 1: "B-PER", 2: "I-PER"})
SPANS = replace(MLM, head="spans")
CLASSIFIER = replace(CONFIG, head="classifier", id2label={0: "a", 1: "b", 2: "c"})


def write(path, config, raw=None, **tensors):
    """A random model's directory whose config.json has `raw` over its own (...: left out), and `tensors` (None: left out)."""
    model = Bert.new(config, 1)
    held = {name: model.parameters[name] for name in model.parameters} | {name.replace("__", "."): t for name, t in tensors.items()}
    held = {name: values for name, values in held.items() if values is not None}
    merged = {**config.to_hf(), **(raw or {})}
    weights.write(path, {name: value for name, value in merged.items() if value is not ...}, held, {})
    return path


# -------------------------------------------------------------------------------------------------------------------- heads


@pytest.mark.parametrize("said", [..., None, [], ["MyBert"], ["gelu_new"], "MyBertForSequenceClassification"])
@pytest.mark.parametrize("config", [CONFIG, CLASSIFIER, MLM, TOKENS, SPANS], ids=["none", "classifier", "mlm", "tokens", "spans"])
def test_tensors_tell_the_head_where_architectures_does_not(tmp_path, said, config):
    loaded = Bert.load(write(tmp_path / "m", config, {"architectures": said}))
    assert loaded.config == config
    assert (loaded.parameters.flat == Bert.new(config, 1).parameters.flat).all()


@pytest.mark.parametrize("labels", [..., None])
def test_a_classifier_s_rows_tell_the_number_of_labels(tmp_path, labels):
    path = write(tmp_path / "m", CLASSIFIER, {"architectures": ..., "id2label": labels, "num_labels": labels})
    assert Bert.load(path).config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


def test_the_pre_trained_model_s_configuration_beside_a_classifier(tmp_path):
    """bert-base-uncased's config.json, whose head is the one for words, is often left beside what was fine-tuned from it."""
    assert Bert.load(write(tmp_path / "m", CLASSIFIER, {"architectures": ["BertForMaskedLM"]})).config.head == "classifier"


@pytest.mark.parametrize(
    ("said", "head"), [("BertForTokenClassification", "tokens"), ("BertForMultipleChoice", "none"), ("BertModel", "none")]
)
def test_another_head_is_not_taken_for_a_classifier_of_texts(tmp_path, said, head):
    assert Bert.load(write(tmp_path / "m", CLASSIFIER, {"architectures": [said]})).config.head == head


def test_a_classifier_without_a_pooler_is_one_of_tokens(tmp_path):
    without = dict.fromkeys(["bert__pooler__dense__weight", "bert__pooler__dense__bias"])
    path = write(tmp_path / "m", CLASSIFIER, {"architectures": ...}, **without)
    assert Bert.load(path).config.head == "tokens"


@pytest.mark.parametrize("name", ["classifier.weight", "classifier.bias", "bert.pooler.dense.weight"])
def test_a_checkpoint_s_own_classifier_is_never_drawn_anew(tmp_path, name):
    """Unless that is asked for: its answers would be chance."""
    path = write(tmp_path / "m", CLASSIFIER, **{name.replace(".", "__"): None})
    with pytest.raises(InputError, match=f"tensor {name} is missing"):
        Bert.load(path)
    Bert.load(path, labels=["a", "b", "c"])


# ------------------------------------------------------------------------------------------------- a head that is thrown away

WORDS = np.ones((9, 8), np.float32)
OTHER_HEADS = {
    "untied": {"cls__predictions__decoder__weight": WORDS},
    "resized": {"cls__predictions__decoder__weight": WORDS[:-3], "cls__predictions__bias": WORDS[:-3, 0].copy()},
    "without a bias": {"cls__predictions__bias": None},
}


@pytest.mark.parametrize("tensors", OTHER_HEADS.values(), ids=OTHER_HEADS)
@pytest.mark.parametrize("head", ["none", "classifier"])
def test_a_head_for_words_that_is_thrown_away_is_not_looked_at(tmp_path, tensors, head):
    loaded = Bert.load(write(tmp_path / "m", MLM, **tensors), head=head, seed=5)
    expected = Bert.new(replace(MLM, head=head, pooler=head == "classifier"), 5).parameters
    encoder = Bert.new(MLM, 1).parameters
    for name in loaded.parameters:  # pooler and classifier are drawn, all else is the checkpoint's
        assert np.array_equal(loaded.parameters[name], (encoder if name in encoder else expected)[name]), name


@pytest.mark.parametrize("tensors", OTHER_HEADS.values(), ids=OTHER_HEADS)
def test_one_that_is_used_is(tmp_path, tensors):
    with pytest.raises(InputError, match=r"decoder\.weight differs from the word embeddings|tensor cls\.predictions\.bias"):
        Bert.load(write(tmp_path / "m", MLM, **tensors))


# ------------------------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    "change, tensor",
    [
        ({"vocab_size": 2**31 - 1}, "embeddings.word_embeddings.weight has shape (9, 8), config.json says (2147483647, 8)"),
        ({"hidden_size": 2**20}, "embeddings.word_embeddings.weight has shape (9, 8), config.json says (9, 1048576)"),
        ({"num_hidden_layers": 1000}, "encoder.layer.2.attention.self.query.weight is missing"),
        ({"intermediate_size": 2**24}, "encoder.layer.0.intermediate.dense.weight has shape (12, 8), config.json says (16777216, 8)"),
        ({"max_position_embeddings": 2**24}, "position_embeddings.weight has shape (7, 8)"),
        ({"type_vocab_size": 1}, "token_type_embeddings.weight has shape (2, 8), config.json says (1, 8)"),
        ({"id2label": {str(i): str(i) for i in range(2)}}, "classifier.weight has shape (3, 8), config.json says (2, 8)"),
        ({"id2label": ..., "num_labels": 100_000}, "classifier.weight has shape (3, 8), config.json says (100000, 8)"),
    ],
)
def test_shapes_are_compared_before_anything_is_allocated_or_drawn(tmp_path, monkeypatch, change, tensor):
    path = write(tmp_path / "m", CLASSIFIER, change)
    monkeypatch.setattr(module, "_initialise", None)
    monkeypatch.setattr(module.Parameters, "zeros", None)
    start = time.process_time()
    with pytest.raises(InputError) as error:
        Bert.load(path)
    assert tensor in str(error.value) and time.process_time() - start < 1


def test_only_what_the_checkpoint_lacks_is_drawn(tmp_path, monkeypatch):
    path, drawn, draw = write(tmp_path / "m", CONFIG), [], module._initialise
    monkeypatch.setattr(module, "_initialise", lambda name, *rest: (drawn.append(name), draw(name, *rest)))
    Bert.load(path)
    assert drawn == []
    Bert.load(path, head="classifier")
    assert drawn == ["classifier.weight", "classifier.bias"]


def test_more_layers_than_the_configuration_has_are_told_of(tmp_path, capsys):
    assert len(Bert.load(write(tmp_path / "m", CONFIG, {"num_hidden_layers": 1})).forward(np.array([[1, 2]]))[0].hidden) == 2
    assert "config.json has num_hidden_layers 1; the weights of more are left out" in capsys.readouterr().err


def test_without_a_layer_a_classifier_looks_at_the_embeddings():
    model = Bert.new(replace(CLASSIFIER, num_hidden_layers=0), 3)
    ids = np.array([[1, 2, 3], [4, 5, 6]])
    P, trace = model.parameters, model.forward(ids)[0]
    pooled = np.tanh(trace.hidden[0][:, 0] @ P["pooler.dense.weight"].T + P["pooler.dense.bias"])
    assert np.allclose(trace.logits, pooled @ P["classifier.weight"].T + P["classifier.bias"], atol=1e-6)
    batch = module.padded(ids.astype(np.int32), None, None)
    alone, _ = model.forward_batch(model.place(batch), hidden=(), scores=(), keep_cache=False)
    assert np.array_equal(alone.logits, trace.logits)


@pytest.mark.parametrize("prefix", ["model.", "_orig_mod.", "module._orig_mod.", "model.module."])
@pytest.mark.parametrize("config", [CONFIG, CLASSIFIER, MLM], ids=["none", "classifier", "mlm"])
def test_a_wrapper_s_prefix_is_taken_off(tmp_path, prefix, config):
    model = Bert.new(config, 1)
    weights.write(tmp_path / "m", config.to_hf(), {prefix + name: model.parameters[name] for name in model.parameters}, {})
    assert (Bert.load(tmp_path / "m").parameters.flat == model.parameters.flat).all()


def test_another_prefix_is_named(tmp_path):
    model = Bert.new(CLASSIFIER, 1)
    weights.write(tmp_path / "m", CLASSIFIER.to_hf(), {"student." + name: model.parameters[name] for name in model.parameters}, {})
    with pytest.raises(InputError, match=r"but there is student\.bert\.embeddings\.word_embeddings\.weight; take the prefix off"):
        Bert.load(tmp_path / "m")


# ------------------------------------------------------------------------------------------------------------------- numbers


def test_whole_numbers_are_no_weights(tmp_path):
    with pytest.raises(InputError, match=r"tensor cls\.predictions\.bias has dtype int8; store it as float32"):
        Bert.load(write(tmp_path / "m", MLM, cls__predictions__bias=np.ones(9, np.int8)))


def test_numbers_too_large_for_the_model_s_type_are_refused(tmp_path):
    gain = np.full(8, 1e300)
    path = write(tmp_path / "m", CONFIG, bert__embeddings__LayerNorm__weight=gain, embeddings__LayerNorm__weight=None)
    tensors = {name if name.startswith("bert.") else f"bert.{name}": t for name, t in weights.read(path).tensors.items()}
    assert tensors["bert.embeddings.LayerNorm.weight"].dtype == np.float64
    with pytest.raises(InputError, match=r"m as float32: tensor embeddings\.LayerNorm\.weight has 8 numbers of 8 that are not finite"):
        Bert.load(path)
    assert (Bert.load(path, dtype=np.float64).parameters["embeddings.LayerNorm.weight"] == 1e300).all()


@pytest.mark.parametrize("config", [CONFIG, CLASSIFIER, MLM], ids=["none", "classifier", "mlm"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_model_is_saved_whose_parameters_are_not_finite(tmp_path, config, value):
    for name in Bert.new(config).parameters:
        model = Bert.new(config, 1)
        model.parameters[name].reshape(-1)[-1] = value
        with pytest.raises(InputError, match=f"tensor {name} has numbers that are not finite"):
            model.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "config, name", [(CONFIG, "attention.self.query.weight"), (CLASSIFIER, "classifier.weight"), (MLM, "cls.predictions.bias")]
)
def test_nor_one_whose_outputs_are_not(tmp_path, config, name):
    """Finite weights, and products or sums of theirs that overflow."""
    model = Bert.new(config, 1)
    for each in model.parameters:
        if each.endswith(name):
            model.parameters[each][...] = 3e38 if "bias" in name else 1e38 * np.sign(model.parameters[each])
        if "LayerNorm.weight" in each:
            model.parameters[each][...] = 1e10
        if "word_embeddings" in each and "bias" in name:
            model.parameters[each][...] = 1e38
    assert np.isfinite(model.parameters.flat).all()
    with pytest.raises(InputError, match="what the model says is not finite"):
        model.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_configuration_that_lies_takes_no_memory(tmp_path):
    path = write(tmp_path / "m", CONFIG, {"intermediate_size": 2**24, "num_hidden_layers": 900})
    tracemalloc.start()
    with pytest.raises(InputError):
        Bert.load(path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_what_is_written_as_a_configuration_is_json(tmp_path):
    """Python reads and writes NaN and Infinity; JSON has neither."""
    path = write(tmp_path / "m", CONFIG, {"temperature": float("nan"), "limits": [1.0, float("inf")]})
    text = (path / "config.json").read_text()
    read = json.loads(text, parse_constant=pytest.fail)
    assert read["temperature"] is None and read["limits"] == [1.0, None]
