"""Learning from raw text: the MLM gradient, pretrain and general distillation end to end on a small grammar."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data.corpora import WORDS, words

from minitinybert.commands import corpus as corpus_command
from minitinybert.commands.corpus import Text, distill_general, mlm_masking, mlm_metrics, pretrain
from minitinybert.commands.shape import is_shape
from minitinybert.data.glue import TASKS, read_split
from minitinybert.data.masking import Masking, mask_batch
from minitinybert.data.segments import Segments
from minitinybert.data.tokenizer import Tokenizer
from minitinybert.distillation.objectives import MaskedLM
from minitinybert.distillation.recipes import RECIPES, Recipe
from minitinybert.engine.batch import packed
from minitinybert.engine.parallel import Workers
from minitinybert.errors import InputError
from minitinybert.losses import mlm
from minitinybert.machine import Machine
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.model.trace import Trace
from minitinybert.training.loop import Options, Stopped
from minitinybert.training.shares import Learner

SHAPE = "2L-16D-2H-32F"
CONFIG = Config(
    vocab_size=100, hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, max_position_embeddings=32,
    head="mlm", pooler=False, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
OPTIONS = Options(epochs=2, batch_size=16, lr=3e-3, log_every=5, save_every=7)


def masked_batch(n=7, seed=0):
    rng = np.random.default_rng(seed)
    ids = [np.r_[2, rng.integers(5, 100, rng.integers(2, 20)), 3].astype(np.int32) for _ in range(n)]
    return mask_batch(packed(ids, [np.zeros_like(i) for i in ids]), Masking(4, 100, (0, 2, 3)), 3)


def random_model(seed=0, dtype=np.float64):
    model = Bert.new(CONFIG, seed, dtype)
    model.parameters.flat[:] = np.random.default_rng(seed).normal(0, 0.3, model.parameters.flat.shape)
    return model


def gradients(model, batch, threads=1):
    with Workers(threads) as workers:
        losses, grads = Learner(model, MaskedLM(), workers, seed=1).gradients(batch, 0)
    return float(losses["mlm"]), grads


def test_the_gradient_is_that_of_finite_differences():
    model, batch = random_model(), masked_batch()
    _, grads = gradients(model, batch)
    rng, eps = np.random.default_rng(1), 1e-6
    for name in grads:
        direction = rng.normal(size=grads[name].shape)
        sides = []
        for sign in (1, -1):
            moved = random_model()
            moved.parameters[name][...] += sign * eps * direction
            sides.append(gradients(moved, batch)[0])
        expected = (sides[0] - sides[1]) / (2 * eps)
        assert abs((grads[name] * direction).sum() - expected) < 1e-6 * max(1, abs(expected)), name
    assert np.linalg.norm(grads["cls.predictions.bias"]) > 1e-3


def test_masked_rows_alone_give_what_all_logits_would():
    model, batch = random_model(), masked_batch()
    loss, grads = gradients(model, batch)
    labels = np.full(len(batch.input_ids), mlm.IGNORE)
    labels[batch.masked.rows] = batch.masked.labels
    trace, cache = model.forward_batch(batch)
    assert trace.logits.shape == (len(labels), 100)
    expected, c = mlm.forward(trace.logits, labels)
    whole = model.backward(cache, Trace(logits=mlm.backward(1.0, c)))
    assert abs(loss - expected) < 1e-12 * expected
    for name in whole:
        assert np.linalg.norm(grads[name] - whole[name]) <= 1e-12 * np.linalg.norm(whole[name]) + 1e-15, name


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_shares_add_up(threads):
    model, batch = random_model(), masked_batch()
    loss, grads = gradients(model, batch)
    loss_of_shares, grads_of_shares = gradients(model, batch, threads)
    assert abs(loss - loss_of_shares) < 1e-12 * loss
    assert np.linalg.norm(grads.flat - grads_of_shares.flat) < 1e-12 * np.linalg.norm(grads.flat)


def test_no_logits_but_the_masked_rows_are_made():
    batch = masked_batch()
    seen = []

    class Seen(MaskedLM):
        def __call__(self, student, *rest):
            seen.append(student.logits.shape)
            return super().__call__(student, *rest)

    with Workers(1) as workers:
        Learner(random_model(), Seen(), workers).gradients(batch, 0)
    assert seen == [(len(batch.masked.rows), 100)]


# ------------------------------------------------------------------------------------------------------------------ end to end


@pytest.fixture(scope="module")
def grammar(tmp_path_factory):
    """A text whose documents have a topic each: three words of 24, so that a masked word is known from those around it."""
    directory = tmp_path_factory.mktemp("grammar")
    rng = np.random.default_rng(0)
    sentence = lambda topic: " ".join(WORDS[5 + 3 * topic + k] for k in rng.integers(0, 3, rng.integers(6, 12)))
    document = lambda topic: "\n".join(sentence(topic) for _ in range(5))
    (directory / "text").write_text("\n\n".join(document(rng.integers(8)) for _ in range(80)) + "\n")
    words().save(str(directory / "tokenizer.json"))
    return directory


def run(grammar, out, model=SHAPE, threads=1, options=OPTIONS, resume=False, text=None, **settings):
    text = text or Text([grammar / "text"], max_length=24)
    with Machine("cpu", threads) as machine:
        return pretrain(model, text, out, options, machine, grammar if is_shape(model) else None, resume=resume, **settings)


@pytest.fixture
def batches(monkeypatch):
    """Every (Segments, epoch, Batch) that is asked for."""
    seen, real = [], Segments.batch

    def batch(self, indices, epoch=0):
        seen.append((self, epoch, real(self, indices, epoch)))
        return seen[-1][2]

    monkeypatch.setattr(Segments, "batch", batch)
    return seen


def rows_of(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_pretraining_learns_the_grammar_and_saves_a_language_model(grammar, tmp_path):
    """Without the context a word costs ln 24 = 3.2 nats, which is where a fresh head starts; with it ln 3 = 1.1."""
    result = run(grammar, tmp_path / "out", "2L-32D-2H-64F", options=replace(OPTIONS, epochs=12, batch_size=8, lr=5e-3))
    losses = [row["losses"]["mlm"] for row in rows_of(tmp_path / "out") if "losses" in row]
    assert 3 < losses[0] < 3.6 and losses[-1] < 2.2
    assert result["dev"]["log_likelihood"] > -2.2 and result["dev"]["top10"] > 0.9
    model = Bert.load(tmp_path / "out")
    assert model.config.head == "mlm" and model.config.vocab_size == 100 and (tmp_path / "out" / "tokenizer.json").exists()


def test_each_epoch_has_its_own_examples_and_the_dev_text_is_no_training_text(grammar, tmp_path, batches):
    run(grammar, tmp_path / "out", options=replace(OPTIONS, epochs=3))
    training = [(epoch, batch) for segments, epoch, batch in batches if segments.first == 0]
    (dev,) = {segments.first for segments, _, _ in batches if segments.first}
    assert {segments.last for segments, _, _ in batches if segments.first == 0} == {dev} and dev == 380
    per_epoch = len(training) // 3
    assert [epoch for epoch, _ in training] == [0] * per_epoch + [1] * per_epoch + [2] * per_epoch
    for epoch in range(3):
        rows = sum(batch.totals.rows for e, batch in training if e == epoch)
        assert rows == batches[0][0].lengths(epoch).sum()


class StopAfter(MaskedLM):
    """Asks this process to stop while step `left` is being worked on."""

    left = 0

    def __call__(self, *arguments):
        StopAfter.left -= 1
        if StopAfter.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__call__(*arguments)


@pytest.mark.parametrize("at", [3, 13, 20])
@pytest.mark.parametrize("pairs", [False, True])
def test_a_stopped_run_goes_on_to_the_same_bits(grammar, tmp_path, monkeypatch, at, pairs):
    text = Text([grammar / "text"], max_length=24, pairs=pairs)
    whole = run(grammar, tmp_path / "whole", text=text)
    monkeypatch.setattr(corpus_command, "MaskedLM", StopAfter)
    StopAfter.left = at
    with pytest.raises(Stopped):
        run(grammar, tmp_path / "parts", text=text)
    assert run(grammar, tmp_path / "parts", text=text, resume=True) == whole
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (tmp_path / "parts" / "model.safetensors").read_bytes()
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "parts")


@pytest.mark.parametrize("change", [{"pairs": True}, {"max_length": 23}, {"dynamic": False}, {"rate": 0.2}])
def test_resuming_with_other_examples_is_refused_by_name(grammar, tmp_path, change):
    options = replace(OPTIONS, epochs=0.2)
    run(grammar, tmp_path / "out", options=options)
    rate = {"rate": change["rate"]} if "rate" in change else {}
    text = Text([grammar / "text"], **{"max_length": 24, **{k: v for k, v in change.items() if k != "rate"}})
    with pytest.raises(InputError, match="--resume needs the same (masked|" + next(iter(change)) + ")"):
        run(grammar, tmp_path / "out", options=options, text=text, resume=True, **rate)


def test_a_checkpoint_without_a_head_for_words_gets_one(grammar, tmp_path):
    run(grammar, tmp_path / "mlm")
    loaded = Bert.load(tmp_path / "mlm", head="none")
    loaded.save(tmp_path / "body")
    kept, is_fresh = corpus_command._mlm_model(str(tmp_path / "mlm"), None, 0)
    assert not is_fresh
    fresh, is_fresh = corpus_command._mlm_model(str(tmp_path / "body"), None, 0)
    assert is_fresh
    for name in kept.parameters:
        same = (kept.parameters[name] == fresh.parameters[name]).all()
        assert same or name.startswith("cls."), name
        assert not same or name != "cls.predictions.transform.dense.weight"
    run(grammar, tmp_path / "again", model=str(tmp_path / "body"), options=replace(OPTIONS, epochs=0.2))


def test_metrics_count_ranks(grammar, tmp_path):
    run(grammar, tmp_path / "out", options=replace(OPTIONS, epochs=0.1))
    model = Bert.load(tmp_path / "out")
    p = model.parameters
    p["cls.predictions.transform.LayerNorm.weight"][...] = p["cls.predictions.transform.LayerNorm.bias"][...] = 0
    p["cls.predictions.bias"][...] = np.where(np.arange(100) == 7, 1.0, -np.arange(100))  # always: word 7, then 0, 1, 2, …
    tokenizer = corpus_command.Tokenizer.load(model.tokenizer_files)
    text = Text([grammar / "text"], max_length=24, shards=tmp_path / "out" / "corpus")
    corpus = text.corpus(tokenizer, tmp_path)
    masking = corpus_command.mlm_masking(tokenizer)
    dev = text.segments(corpus, tokenizer, 0, masking)
    labels = dev.batch(np.arange(len(dev))).masked.labels
    with Workers(2) as workers:
        seen = mlm_metrics(model, dev, workers)
    bias = np.where(np.arange(100) == 7, 1.0, -np.arange(100))
    assert seen.pop("log_likelihood") == pytest.approx(np.mean((bias - np.log(np.exp(bias).sum()))[labels]), rel=1e-5)
    assert seen == {"top1": (labels == 7).mean(), "top10": (labels <= 9).mean()}
    assert 0 < seen["top1"] < seen["top10"] < 1
    p["cls.predictions.bias"][7] = np.nan  # than which no word is more probable: each would be the first
    with Workers(1) as workers, pytest.raises(InputError, match="answers to masked words are not finite"):
        mlm_metrics(model, dev, workers)


def test_what_cannot_be_trained_is_said(grammar, tmp_path):
    with pytest.raises(InputError, match="need a vocabulary"), Machine("cpu", 1) as machine:
        pretrain(SHAPE, Text([grammar / "text"]), tmp_path / "out", OPTIONS, machine)
    with pytest.raises(InputError, match="neither a model directory nor a shape"):
        run(grammar, tmp_path / "out", model="4L")
    run(grammar, tmp_path / "mlm", options=replace(OPTIONS, epochs=0.1))
    with pytest.raises(InputError, match="a vocabulary of its own"), Machine("cpu", 1) as machine:
        pretrain(str(tmp_path / "mlm"), Text([grammar / "text"]), tmp_path / "out", OPTIONS, machine, grammar)
    for rate in (0.0, 2.0, float("nan")):
        with pytest.raises(InputError, match="--mask-rate"):
            run(grammar, tmp_path / "out", rate=rate)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="512 positions"):
        run(grammar, tmp_path / "out", text=Text([grammar / "text"], max_length=513))
    (tmp_path / "short").write_text("w1 w2\n" * 5)
    with pytest.raises(InputError, match="5 sentences"):
        run(grammar, tmp_path / "short-out", text=Text([tmp_path / "short"], max_length=24))


@pytest.mark.parametrize("recipe, pairs", [("default", False), ("huawei-2019", True), ("mlm", False)])
def test_general_distillation_lowers_its_three_losses(grammar, tmp_path, recipe, pairs):
    recipe = replace(RECIPES.get(recipe) or Recipe(corpus_masking=recipe), student_embeddings="random")  # the nearest are there at once
    teacher = Bert.new(replace(CONFIG, num_hidden_layers=4, hidden_size=24), 5)
    teacher.parameters.flat[:] = np.random.default_rng(1).normal(0, 0.2, teacher.parameters.flat.shape)
    teacher.tokenizer_files = {"tokenizer.json": grammar / "tokenizer.json"}
    teacher.save(tmp_path / "teacher")
    text = Text([grammar / "text"], max_length=24, pairs=pairs)
    options = replace(OPTIONS, epochs=4, lr=1e-2)
    with Machine("cpu", 1) as machine:
        result = distill_general(str(tmp_path / "teacher"), SHAPE, text, tmp_path / "out", options, machine, recipe)
        losses = [row["losses"] for row in rows_of(tmp_path / "out") if "losses" in row]
        assert set(losses[0]) == {"embedding", "hidden", "attention"} and result["train"] == losses[-1]
        for name, factor in (("embedding", 0.7), ("hidden", 0.7), ("attention", 0.9)):
            assert losses[-1][name] < factor * losses[0][name], (name, losses[0], losses[-1])
        student = Bert.load(tmp_path / "out")
        assert student.config.shape == SHAPE and student.config.head == "none" and student.tokenizer_files
        # A student that was distilled is gone on with by its directory.
        again = distill_general(
            str(tmp_path / "teacher"), str(tmp_path / "out"), text, tmp_path / "again", replace(options, epochs=0.1), machine, recipe
        )
        assert again["train"].keys() == losses[0].keys()


@pytest.mark.parametrize("masking", ["none", "mlm"])
def test_general_distillation_with_a_prediction_loss(grammar, tmp_path, masking):
    """The teacher's words are learned, by a student of a shape or of a directory, which keeps its head."""
    recipe = Recipe(general_prediction=1.0, corpus_masking=masking)
    teacher = Bert.new(replace(CONFIG, num_hidden_layers=4, hidden_size=24, head="mlm", pooler=False), 5)
    teacher.parameters.flat[:] = np.random.default_rng(1).normal(0, 0.6, teacher.parameters.flat.shape)
    teacher.tokenizer_files = {"tokenizer.json": grammar / "tokenizer.json"}
    teacher.save(tmp_path / "teacher")
    text, options = Text([grammar / "text"], max_length=24), replace(OPTIONS, epochs=4, lr=1e-2)
    with Machine("cpu", 1) as machine:
        go = lambda student, out, options, teacher="teacher", recipe=recipe: distill_general(
            str(tmp_path / teacher), student, text, tmp_path / out, options, machine, recipe
        )
        go(SHAPE, "out", options)
        losses = [row["losses"] for row in rows_of(tmp_path / "out") if "losses" in row]
        assert set(losses[0]) == {"embedding", "hidden", "attention", "prediction"}
        assert losses[-1]["prediction"] < 0.9 * losses[0]["prediction"]
        student = Bert.load(tmp_path / "out")
        assert student.config.shape == SHAPE and student.config.head == "mlm"
        assert go(str(tmp_path / "out"), "again", replace(options, epochs=0.1))["train"]["prediction"] < losses[0]["prediction"]
        go(SHAPE, "plain", replace(options, epochs=0.1), recipe=Recipe())
        assert Bert.load(tmp_path / "plain").config.head == "none"
        with pytest.raises(InputError, match="no masked language model's head"):
            go(SHAPE, "refused", options, teacher="plain")


def test_a_recipe_decides_padding_and_masks(grammar, tmp_path, batches):
    teacher = Bert.new(CONFIG, 5)
    teacher.tokenizer_files = {"tokenizer.json": grammar / "tokenizer.json"}
    teacher.save(tmp_path / "teacher")
    text, options = Text([grammar / "text"], max_length=24), replace(OPTIONS, epochs=0.1)
    with Machine("cpu", 1) as machine:
        for name, recipe in RECIPES.items():
            distill_general(str(tmp_path / "teacher"), SHAPE, text, tmp_path / name, options, machine, recipe)
            batch = batches[-1][2]
            assert (
                (batch.attention_mask is not None) == (recipe.padding == "count") == (batch.runs[0].length == batch.runs[-1].length == 24)
            )
            assert (batch.masked is not None) == (name == "huawei-2019")
            assert batch.masked is None or batch.totals.masked == batch.size


def test_general_distillation_refuses_what_does_not_belong_together(grammar, tmp_path):
    teacher = Bert.new(replace(CONFIG, type_vocab_size=1), 5)
    teacher.tokenizer_files = {"tokenizer.json": grammar / "tokenizer.json"}
    teacher.save(tmp_path / "teacher")
    with Machine("cpu", 1) as machine:
        go = lambda **text: distill_general(
            str(tmp_path / "teacher"), SHAPE, Text([grammar / "text"], **text), tmp_path / "out", OPTIONS, machine
        )
        with pytest.raises(InputError, match="two token types"):
            go(max_length=24, pairs=True)
        with pytest.raises(InputError, match="32 positions"):
            go(max_length=64)
        Bert.new(replace(CONFIG, max_position_embeddings=64)).save(tmp_path / "student")
        (tmp_path / "student" / "tokenizer.json").write_bytes((grammar / "tokenizer.json").read_bytes())
        with pytest.raises(InputError, match="32 positions"):
            text = Text([grammar / "text"], max_length=64)
            distill_general(str(tmp_path / "teacher"), str(tmp_path / "student"), text, tmp_path / "out", OPTIONS, machine)


SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.mark.skipif(not (SHARED / "bert-tiny-mlm").is_dir(), reason="beside the checkout there is no trained model to ask")
def test_a_trained_model_has_about_half_of_the_masked_words_of_english_among_its_ten_likeliest(tmp_path):
    model = Bert.load(SHARED / "bert-tiny-mlm")
    tokenizer = Tokenizer.load(model.tokenizer_files)
    text = read_split(TASKS["sts-b"], SHARED / "glue" / "STS-B", "dev").texts[:500]
    (tmp_path / "text").write_text("\n".join(text) + "\n", encoding="utf-8")
    corpus = Text([tmp_path / "text"]).corpus(tokenizer, tmp_path)
    masking = replace(mlm_masking(tokenizer), mask_fraction=1.0, random_fraction=0.0)
    examples = Segments(corpus, tokenizer.cls_id, tokenizer.sep_id, masking=masking, dynamic=False, short=0.0)
    with Workers(1) as workers:
        assert 0.45 < mlm_metrics(model, examples, workers)["top10"] < 0.6
