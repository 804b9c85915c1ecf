"""Who answers a step: each gives what the running teacher would, and is asked once where that pays."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from minitinybert.data.batching import EncodedExamples, by_length
from minitinybert.data.tagging import TaggedExamples
from minitinybert.distillation.distill import Intermediate, Prediction
from minitinybert.distillation.objectives import View
from minitinybert.distillation.tokens import SpanPrediction, TokenPrediction
from minitinybert.engine.parallel import Workers
from minitinybert.engine.random import key
from minitinybert.engine.ranks import ALONE, Ranks
from minitinybert.errors import InputError
from minitinybert.model.bert import Bert
from minitinybert.training import evaluation, kept_traces
from minitinybert.training.answers import Answers
from minitinybert.training.kept_traces import KeptTraces, NoRoom, Rounded, gigabytes, name_of, view_of
from minitinybert.training.shares import Learner
from minitinybert.training.teacher import KeptLogits, KeptTokens, Running

from .test_shares import STUDENT, TEACHER

AT = (3, 5)  # (seed, step)
TRACES, LOGITS = Intermediate(STUDENT, TEACHER).teacher_view, Prediction().teacher_view
LESS = Intermediate(STUDENT, TEACHER, weights={"attention": 0.0}).teacher_view


def examples(**settings):
    rng = np.random.default_rng(8)
    ids = [rng.integers(0, 500, n).astype(np.int32) for n in (3, 9, 1, 5, 5, 7, 3)]
    return EncodedExamples(ids, [np.zeros_like(i) for i in ids], **settings)


def teacher_of(dtype=np.float64):
    model = Bert.new(TEACHER, 2, dtype)
    model.parameters.flat += 0.1 * np.random.default_rng(3).standard_normal(model.parameters.flat.size)
    return model


def gradient(objective, teacher, workers):
    learner = Learner(Bert.new(STUDENT, 1, np.float64), objective, workers, teacher, seed=4)
    losses, grads = learner.gradients(examples().batch(np.array([6, 1, 4, 0, 3])), 0)
    return losses, grads.flat.copy()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["logits", "traces"])
def test_what_is_kept_stands_in_for_the_teacher(tmp_path, monkeypatch, kind, threads):
    """The teacher is asked in several batches."""
    monkeypatch.setattr(kept_traces, "_ROWS", 10)
    model = teacher_of()
    objective = Prediction() if kind == "logits" else Intermediate(STUDENT, TEACHER)
    with Workers(threads) as workers:
        if kind == "logits":
            whole, kept = examples().batch(np.arange(7)), KeptLogits(np.empty((7, 2)))
            kept.logits[whole.sentences] = model.forward_batch(whole)[0].logits
        else:
            kept = KeptTraces(model, examples(), objective.teacher_view, tmp_path, workers, dtype=np.float64)
        (expected, theirs), (found, ours) = (gradient(objective, teacher, workers) for teacher in (Running(model), kept))
    assert np.linalg.norm(ours - theirs) <= 1e-12 * np.linalg.norm(theirs) and theirs.any()
    assert found.keys() == expected.keys() and all(found[term] == pytest.approx(expected[term], rel=1e-12) for term in expected)


@pytest.mark.parametrize("padded", [None, 12], ids=["packed", "padded"])
@pytest.mark.parametrize("head", ["tokens", "spans"])
def test_what_is_kept_of_tokens_stands_in_for_the_teacher(tmp_path, head, padded):
    """Its logits of every token, or of those that are asked for; the batches they were made in are others."""
    plain = examples(pad_to=padded)
    places = [np.arange(0, len(ids), 2) for ids in plain.input_ids]
    asked = TaggedExamples(plain.input_ids, plain.token_type_ids, None, padded, 0, places, places)
    given, objective = (asked, TokenPrediction()) if head == "tokens" else (plain, SpanPrediction())
    student, teacher = (replace(config, head=head, pooler=False) for config in (STUDENT, TEACHER))
    model = Bert.new(teacher, 2, np.float32)
    with Workers(2) as workers:
        kept = Answers(1.0).of(Running(model), given, objective.teacher_view, "here", tmp_path, workers)
        assert isinstance(kept, KeptTokens)
        batch, ends = given.batch(np.array([6, 1, 4, 0, 3])), []
        for by in (Running(model), kept):
            learner = Learner(Bert.new(student, 1), objective, workers, by, seed=4)
            losses, grads = learner.gradients(batch, 0)
            ends.append((float(losses["prediction"]), grads.flat.copy()))
    (expected, theirs), (found, ours) = ends
    assert found == pytest.approx(expected, rel=1e-5) and theirs.any()
    assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs)


def test_answers_in_float16_hardly_move_the_gradient(tmp_path):
    """And whoever answers for a file that found no room gives the very same values."""
    model, objective = teacher_of(np.float32), Intermediate(STUDENT, TEACHER)
    with Workers(2) as workers:
        kept = KeptTraces(model, examples(), TRACES, tmp_path, workers)
        exact, short, asked = (gradient(objective, by, workers)[1] for by in (Running(model), kept, Rounded(Running(model))))
    assert 1e-7 < np.linalg.norm(short - exact) / np.linalg.norm(exact) < 1e-4
    assert np.linalg.norm(short - asked) < 1e-6 * np.linalg.norm(exact)
    batch = examples().batch(np.arange(7))
    for by in (kept, Rounded(Running(model))):
        seen = by.answer(batch, TRACES, AT)
        arrays = [seen.hidden[n] for n in TRACES.hidden] + [seen.scores[n] for n in TRACES.scores]
        assert all(a.dtype == np.float32 and np.array_equal(a, a.astype(np.float16)) for a in arrays)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("value, dtype", [(65504.0, np.float16), (65536.0, np.float32), (1e30, np.float32), (np.inf, np.float32)])
def test_what_float16_does_not_hold_is_kept_whole(tmp_path, value, sign, dtype):
    """Infinite would be the loss, and a clipped value another target."""
    model = teacher_of(np.float32)
    last = max(TRACES.hidden)
    model.parameters[f"bert.encoder.layer.{last - 1}.output.LayerNorm.weight"][0] = 0
    model.parameters[f"bert.encoder.layer.{last - 1}.output.LayerNorm.bias"][0] = sign * value
    batch = examples().batch(np.arange(7))
    with Workers(1) as workers:
        kept = KeptTraces(model, examples(), TRACES, tmp_path, workers)
    assert kept.values.dtype == dtype and not list(tmp_path.iterdir())
    for by in (kept, Rounded(Running(model))):
        assert (by.answer(batch, TRACES, AT).hidden[last][:, 0] == sign * value).all()


def test_a_disk_keeps_some_of_what_is_free(tmp_path, monkeypatch):
    size = round(1e9 * gigabytes(examples().lengths(), TEACHER, TRACES))
    for free, fits in ((1.1 * size, False), (1.12 * size, True)):
        monkeypatch.setattr(kept_traces.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        with Workers(1) as workers:
            if fits:
                KeptTraces(teacher_of(), examples(), TRACES, tmp_path, workers)
                continue
            with pytest.raises(NoRoom):
                KeptTraces(teacher_of(), examples(), TRACES, tmp_path, workers)


# ------------------------------------------------------------------------------------------------------------------- several runs


@pytest.fixture
def fills(monkeypatch):
    """A line for every file that is filled."""
    filled, fill = [], KeptTraces._fill
    monkeypatch.setattr(KeptTraces, "_fill", lambda self, values: filled.append(values.dtype) or fill(self, values))
    return filled


def files_in(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_runs_with_one_teacher_and_data_set_share_its_answers(tmp_path, fills):
    """Wherever the two lie; other weights and other ids have files of their own."""

    def of(model=None, view=TRACES, given=None):
        answers = Answers(None, tmp_path / "shared")
        with Workers(1) as workers:
            return answers.of(Running(model or teacher_of()), given or examples(), view, object(), tmp_path / "out", workers)

    first = of()
    assert len(fills) == 1 and files_in(tmp_path) == [first.path] and not (tmp_path / "out").exists()
    again = of()
    less = of(view=LESS)  # of which the file has more
    assert len(fills) == 1 and again.path == less.path == first.path and np.array_equal(again.values, first.values)
    other, ids = teacher_of(), examples()
    other.parameters.flat[5] += 1e-6
    ids.input_ids[2][0] += 1
    types = examples()
    types.token_type_ids[1][3] = 1
    others = [of(other), of(given=ids), of(given=types)]
    assert len(fills) == 4 and len({kept.path.parent for kept in (first, *others)}) == 4
    assert len(files_in(tmp_path)) == 4  # no lock, nothing half-written
    path, whole = first.path, first.path.read_bytes()
    for damage in (whole[:-2], whole + b"00"):
        path.write_bytes(damage)
        assert of().path == path and path.read_bytes() == whole
    assert len(fills) == 6


def test_what_is_beyond_float16_is_found_again(tmp_path, fills):
    model = teacher_of(np.float32)
    model.parameters["bert.embeddings.LayerNorm.bias"][0] = 1e6
    for _ in range(2):
        with Workers(1) as workers:
            kept = Answers(None, tmp_path).of(Running(model), examples(), TRACES, "here", tmp_path, workers)
        assert kept.path.suffix == ".float32" and np.isfinite(kept.values).all()
    assert fills == [np.float16, np.float32] and files_in(tmp_path) == [kept.path]


def test_whoever_finds_another_run_at_a_file_waits_for_it(tmp_path, monkeypatch, fills):
    begun, fill = threading.Event(), KeptTraces._fill

    def slowly(self, values):
        begun.set()
        time.sleep(0.3)
        fill(self, values)

    monkeypatch.setattr(KeptTraces, "_fill", slowly)
    found = []

    def run():
        with Workers(1) as workers:
            found.append(Answers(None, tmp_path).of(Running(teacher_of()), examples(), TRACES, "here", tmp_path, workers))

    first, second = (threading.Thread(target=run) for _ in range(2))
    first.start()
    assert begun.wait(20)
    second.start()
    first.join()
    second.join()
    assert len(fills) == 1 and len(found) == 2 and found[0].path == found[1].path and files_in(tmp_path) == [found[0].path]


def test_other_runs_files_do_not_give_way(tmp_path):
    """An ablation's own do, the oldest first."""
    size = gigabytes(examples().lengths(), TEACHER, TRACES)
    for own in (False, True):
        place = tmp_path / str(own)
        answers = Answers(1.5 * size, place, own)
        models = [teacher_of(), teacher_of()]
        models[1].parameters.flat[5] += 1
        with Workers(1) as workers:
            first, second = (answers.of(Running(m), examples(), TRACES, i, tmp_path, workers) for i, m in enumerate(models))
        assert type(first) is KeptTraces and type(second) is (KeptTraces if own else Rounded)
        assert files_in(place) == [(second if own else first).path]


@pytest.mark.parametrize("hidden, scores", [([0], []), ([], [3]), ([0, 3, 12], [2, 11]), (range(25), range(24)), ([101], [0, 99])])
def test_a_file_s_name_says_what_it_holds(hidden, scores):
    view = View(frozenset(hidden), frozenset(scores))
    assert view_of(name_of(view) + ".float16") == view
    assert view_of("1-2.partial") is view_of("1-2") is view_of("x-2.float16") is None


def test_the_file_holds_what_was_reckoned_and_is_full(tmp_path):
    with Workers(1) as workers:
        values = KeptTraces(teacher_of(), examples(), TRACES, tmp_path, workers).values
    assert values.nbytes / 1e9 == gigabytes(examples().lengths(), TEACHER, TRACES) and values.dtype == np.float16
    assert np.isfinite(values).all() and (values != 0).mean() > 0.99


@pytest.mark.parametrize("spare, left", [(0, 0.5), (0, 0.999), (500_000, 1.5)])  # spare: more than half a file
def test_a_cache_that_finds_no_room_leaves_the_teacher_to_answer(tmp_path, monkeypatch, capsys, spare, left):
    """A file that is mapped before there is room for it ends the process (SIGBUS). `spare` is for what else the run has to write."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    running = Running(teacher_of())
    size = round(1e9 * gigabytes(examples().lengths(), TEACHER, TRACES))
    monkeypatch.setenv("MINITINYBERT_QUIET", "")
    with Workers(1) as workers:
        answers = Answers(1.0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(left * size), before[1]))
        try:
            asked = answers.of(running, examples(), TRACES, "here", tmp_path, workers, spare)
            assert type(asked) is Rounded and asked.teacher is running
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and said[0].startswith(f"the teacher is run at every epoch: {tmp_path} has no room for a file"), said
        assert "(File too large)" in said[0] and not list(tmp_path.iterdir())
        kept = answers.of(running, examples(), TRACES, "here", tmp_path, workers, spare)
        assert type(kept) is KeptTraces and kept.values.nbytes == size and not list(tmp_path.iterdir())


def test_a_running_teacher_s_dropout_is_its_own_and_the_step_s():
    batch, model = examples().batch(np.arange(7)), teacher_of()
    logits = lambda teacher, at: teacher.answer(batch, LOGITS, at).logits
    calm, training = Running(model), Running(model, dropout=True)
    assert np.array_equal(logits(calm, AT), logits(calm, (3, 6))) and np.array_equal(logits(training, AT), logits(training, AT))
    masks = [logits(training, at) for at in (AT, (3, 6), (4, 5))] + [model.forward_batch(batch, key(*AT))[0].logits, logits(calm, AT)]
    for i, a in enumerate(masks):
        assert not any(np.allclose(a, b) for b in masks[i + 1 :]), i


def test_ids_that_the_teacher_does_not_have_are_said():
    small = Bert.new(TEACHER, 2).for_reading()
    batch = examples().batch(np.arange(7))
    batch.input_ids[0] = 500
    with pytest.raises(InputError, match="model has rows 0 to 499"):
        Running(small).check(batch)


def same(kept, running):
    batch = examples().batch(np.array([5, 2, 1]))
    a, b = (teacher.answer(batch, LOGITS, AT).logits for teacher in (kept, running))
    return np.allclose(a, b, rtol=1e-5) and a.shape == (3, 2)


def test_who_answers(tmp_path):
    """By what is looked at, and where keeping it does not pay, the teacher itself."""
    running = Running(teacher_of(np.float32))
    several = Ranks()
    several.size = 2

    def of(view, teacher=running, limit=1.0, pad_to=None, ranks=ALONE):
        workers.ranks = ranks
        return Answers(limit).of(teacher, examples(pad_to=pad_to), view, "here", tmp_path, workers)

    with Workers(1) as workers:
        assert type(of(TRACES)) is KeptTraces and type(of(LESS)) is KeptTraces
        assert type(of(LOGITS, limit=0.0)) is KeptLogits and same(of(LOGITS), running)
        dropout = Running(running.model, dropout=True)
        assert all(of(view, dropout) is dropout for view in (TRACES, LOGITS, None))
        assert of(None) is running and of(TRACES._replace(logits=True)) is running
        assert of(TRACES, limit=0.0) is running and of(TRACES, pad_to=9) is running
        assert all(type(of(TRACES, **how)) is Rounded for how in ({"limit": 1e-9}, {"ranks": several}))
        assert type(of(TRACES, limit=None)) is KeptTraces
        assert of(View(hidden=frozenset([0]))).hidden == [0]


def test_a_teacher_is_asked_once_for_all_that_look_at_no_more(tmp_path):
    running = Running(teacher_of(np.float32))
    size = gigabytes(examples().lengths(), TEACHER, TRACES)
    with Workers(1) as workers:
        answers = Answers(2.5 * size)
        get = lambda where, view: answers.of(running, examples(), view, where, tmp_path, workers)
        first = get("a", TRACES)
        assert get("a", LESS) is first
        second = get("b", LESS)
        assert second is not first and get("b", TRACES) is not second  # it looks at more
        assert get("a", TRACES) is not first  # the oldest gave way
        assert get("a", LOGITS) is get("a", LOGITS) is not get("b", LOGITS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_no_answers(value):
    model = teacher_of(np.float32)
    model.parameters["classifier.bias"][0] = value
    with Workers(1) as workers, pytest.raises(InputError, match=r"logits of (\d+) of \1 examples are not finite"):
        evaluation.logits(model, examples(), workers)


def test_logits_are_those_of_an_evaluation(tmp_path):
    model = teacher_of(np.float32)
    with Workers(2) as workers:
        kept = Answers(0.0).of(Running(model), examples(), LOGITS, "here", tmp_path, workers)
        assert np.array_equal(kept.logits, evaluation.logits(model, examples(), workers))


@pytest.mark.parametrize("rows, description", [(None, ""), (12, ""), (12, "asked")], ids=["as it is", "in many", "with a bar"])
def test_an_evaluation_says_of_each_example_what_the_model_says_of_it_alone(monkeypatch, rows, description):
    """Of more tokens than a batch takes; and of more batches than go by between two signs of progress."""
    model, rng = Bert.new(TEACHER, 2), np.random.default_rng(9)
    ids = [rng.integers(0, 500, n).astype(np.int32) for n in (*rng.integers(1, 12, 60), *[64] * 40)]
    assert sum(map(len, ids[60:])) > evaluation._ROWS
    if rows:
        monkeypatch.setattr(evaluation, "_ROWS", rows)
    asked = []
    monkeypatch.setattr(evaluation, "by_length", lambda *given: asked.extend(by_length(*given)) or list(asked))
    with Workers(2) as workers:
        found = evaluation.logits(model, EncodedExamples(ids, [0 * row for row in ids]), workers, description)
    assert len(asked) > (evaluation._TOGETHER if rows else 1)
    alone = np.concatenate([model.forward(row[None])[0].logits for row in ids])
    assert np.allclose(found, alone, rtol=1e-4, atol=1e-6) and len(np.unique(found.round(6), axis=0)) > 90
