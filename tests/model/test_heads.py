"""Which head a model gets from a checkpoint that has it, another, or none."""

from dataclasses import replace

import numpy as np
import pytest

from minitinybert.distillation.tokens import SupervisedSpans, SupervisedTokens
from minitinybert.engine.batch import asking, packed
from minitinybert.errors import InputError
from minitinybert.model.bert import Bert
from minitinybert.model.config import TOKEN_MAPS, Config

SMALL = Config(9, 8, 1, 2, 12, max_position_embeddings=6, id2label={0: "a", 1: "b"})


def saved(directory, head):
    model = Bert.new(replace(SMALL, head=head, pooler=head in ("none", "classifier")), 1)
    model.parameters.flat += 1
    model.save(directory)
    return model


@pytest.mark.parametrize("own", ["none", "classifier", "mlm", *TOKEN_MAPS])
@pytest.mark.parametrize("asked", ["classifier", *TOKEN_MAPS])
def test_a_head_of_a_task_is_the_checkpoint_s_own_or_fresh(tmp_path, own, asked):
    before = saved(tmp_path / "m", own)
    loaded = Bert.load(tmp_path / "m", head=asked, seed=7)
    name = {"classifier": "classifier", **TOKEN_MAPS}[asked] + ".weight"
    fresh = Bert.new(replace(loaded.config, head=asked, pooler=asked == "classifier"), 7).parameters[name]
    assert loaded.config.head == asked and np.array_equal(loaded.parameters[name], before.parameters[name] if own == asked else fresh)
    body = "embeddings.word_embeddings.weight"
    assert np.array_equal(loaded.parameters[body], before.parameters[body])
    assert ("pooler.dense.weight" in loaded.parameters) is (asked == "classifier")


def test_spans_have_two_logits_whatever_the_checkpoint_s_labels(tmp_path):
    config = replace(SMALL, head="classifier", id2label={0: "a", 1: "b", 2: "c"})
    Bert.new(config).save(tmp_path / "m")
    loaded = Bert.load(tmp_path / "m", head="spans")
    assert loaded.parameters["qa_outputs.weight"].shape == (2, 8) and loaded.config.num_labels == 2


def test_of_asked_rows_alone_there_are_logits():
    model = Bert.new(replace(SMALL, head="tokens", pooler=False), 1, np.float64)
    batch = packed([np.array([1, 2, 3]), np.array([4])], [np.zeros(3, int), np.zeros(1, int)])
    whole, _ = model.forward_batch(batch)
    some, _ = model.forward_batch(batch, positions=np.array([3, 0]))
    assert np.allclose(some.logits, whole.logits[[3, 0]], atol=1e-14) and some.logits.shape == (2, 2)
    assert model.forward_batch(batch, logits=False)[0].logits is None


def test_labels_that_no_row_has_are_refused():
    """A GPU would read whatever lies there."""
    rows = [np.array([1, 2, 3]), np.array([4])]
    batch = packed(rows, [0 * row for row in rows], labels=np.array([[0, 2], [0, 0]]))
    SupervisedSpans().check(batch, SMALL)
    for labels in ([[0, 3], [0, 0]], [[0, 2], [1, 0]], [[-1, 0], [0, 0]]):
        bad = packed(rows, [0 * row for row in rows], labels=np.array(labels))
        with pytest.raises(InputError, match="lies outside its text"):
            SupervisedSpans().check(bad, SMALL)
    words = asking(batch, [np.array([0]), np.array([0, 2])], [np.array([1]), np.array([0, 2])])
    with pytest.raises(InputError, match="labels of words holds 2, but the model has classes 0 to 1"):
        SupervisedTokens().check(words, SMALL)
