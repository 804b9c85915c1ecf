"""The loop: stopped and resumed it ends with the same bits; what it leaves can be gone on from; other runs are not harmed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minitinybert.commands.students import known_projections
from minitinybert.data.batching import EncodedExamples
from minitinybert.distillation.distill import Intermediate
from minitinybert.distillation.objectives import Supervised
from minitinybert.distillation.recipes import Recipe
from minitinybert.engine.parallel import Workers
from minitinybert.errors import InputError
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.training import loop
from minitinybert.training.loop import Options, Stopped, train
from minitinybert.training.optim import Adam
from minitinybert.training.shares import Learner
from minitinybert.training.state import load_state
from minitinybert.training.teacher import NOBODY, Running

CONFIG = Config(
    vocab_size=30, hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, max_position_embeddings=12,
    head="classifier",
)  # fmt: skip
OPTIONS = Options(epochs=3, batch_size=4, lr=1e-2, log_every=3, save_every=4)
ALIGNED = Options(epochs=3, batch_size=4, lr=1e-2, log_every=4, save_every=4)  # a line of metrics and a checkpoint at the same steps
EVERY_LINE = Options(epochs=3, batch_size=4, lr=1e-2, log_every=1, save_every=99)


def examples(n=22):
    rng = np.random.default_rng(1)
    ids = [rng.integers(0, 30, rng.integers(1, 12)).astype(np.int32) for _ in range(n)]
    return EncodedExamples(ids, [np.zeros_like(i) for i in ids], rng.integers(0, 2, n))


class StopAfter(Supervised):
    """Sends this process a signal while step `at` is being worked on."""

    def __init__(self, at=None, number=signal.SIGTERM):
        super().__init__()
        self.left, self.number = at, number

    def __call__(self, *arguments):
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.number)
        return super().__call__(*arguments)


def fit(out, objective=None, resume=False, options=OPTIONS, evaluate=None, teacher=None, threads=1):
    with Workers(threads) as workers:
        learner = Learner(Bert.new(CONFIG, 7), objective or Supervised(), workers, Running(teacher) if teacher else NOBODY, seed=3)
        return train(learner, examples(), options, out, evaluate, "norm", resume), learner


def metrics_of(out):
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


def norm_of(model):
    return {"norm": float(np.linalg.norm(model.parameters.flat))}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [1, 5, 8, 12, 17])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, at, number):
    _, whole = fit(tmp_path / "whole", evaluate=norm_of)
    with pytest.raises(Stopped) as stopped:
        fit(tmp_path / "parts", StopAfter(at, number), evaluate=norm_of)
    assert stopped.value.signal == number and f"after step {at};" in str(stopped.value)
    _, resumed = fit(tmp_path / "parts", resume=True, evaluate=norm_of)
    assert (whole.student.parameters.flat == resumed.student.parameters.flat).all()
    assert Bert.load(tmp_path / "whole").parameters.flat.tobytes() == Bert.load(tmp_path / "parts").parameters.flat.tobytes()
    rows = [metrics_of(tmp_path / d) for d in ("whole", "parts")]
    assert rows[0] == rows[1] and len(rows[0]) > 5


@pytest.mark.parametrize("at, options", [(10, "ALIGNED"), (3, "EVERY_LINE")])
def test_a_killed_process_goes_on_from_its_last_checkpoint(tmp_path, at, options):
    """SIGKILL leaves no time for anything: the run restarts from the last checkpoint, or from the start, and repeats the rest."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]); import conftest, pathlib; from training import test_loop as t;"
        f"t.fit(pathlib.Path(sys.argv[1]), t.StopAfter({at}, t.signal.SIGKILL), options=t.{options}, evaluate=t.norm_of)"
    )
    tests = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "parts", tests], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "parts" / "metrics.jsonl").read_text()
    _, resumed = fit(tmp_path / "parts", resume=True, options=globals()[options], evaluate=norm_of)
    _, whole = fit(tmp_path / "whole", options=globals()[options], evaluate=norm_of)
    assert (whole.student.parameters.flat == resumed.student.parameters.flat).all()
    assert metrics_of(tmp_path / "parts") == metrics_of(tmp_path / "whole")


def test_the_first_line_says_what_was_run(tmp_path):
    """Once, whether the run was stopped or not: its name, its settings, and what whoever trains tells of it."""
    for place, at in (("whole", None), ("early", 1), ("late", 17)):
        out = tmp_path / place
        with Workers(1) as workers:
            train_on = lambda objective, resume=False, out=out, workers=workers: train(
                Learner(Bert.new(CONFIG, 7), objective, workers, seed=3), examples(), OPTIONS, out, resume=resume, description="try",
                about={"teacher": "nobody"},
            )  # fmt: skip
            if at:
                with pytest.raises(Stopped):
                    train_on(StopAfter(at))
            train_on(Supervised(), resume=True)
    first, *rest = metrics_of(tmp_path / "whole")
    assert first["run"]["what"] == "try" and first["run"]["teacher"] == "nobody" and first["run"]["settings"]["lr"] == OPTIONS.lr
    assert not any("run" in row for row in rest)
    assert metrics_of(tmp_path / "early") == metrics_of(tmp_path / "late") == [first, *rest]


def test_a_run_that_was_stopped_before_its_first_line_is_not_written_over(tmp_path):
    with pytest.raises(Stopped):
        fit(tmp_path / "out", StopAfter(1))
    assert not (tmp_path / "out" / "metrics.jsonl").exists()
    with pytest.raises(InputError, match="--resume"):
        fit(tmp_path / "out")


def test_a_model_that_no_run_left_is_not_written_over(tmp_path):
    Bert.new(CONFIG, 1).save(tmp_path / "out")
    for resume in (False, True):
        with pytest.raises(InputError, match="holds a model"):
            fit(tmp_path / "out", resume=resume)


def test_other_weights_and_other_data_are_no_run_to_go_on_with(tmp_path):
    fit(tmp_path / "out")
    with Workers(1) as workers:
        other = Learner(Bert.new(CONFIG, 8), Supervised(), workers, seed=3)
        with pytest.raises(InputError, match="same starting weights"):
            train(other, examples(), OPTIONS, tmp_path / "out", resume=True)
        same = Learner(Bert.new(CONFIG, 7), Supervised(), workers, seed=3)
        changed = examples()
        changed.input_ids[3][0] += 1
        with pytest.raises(InputError, match="same training data"):
            train(same, changed, OPTIONS, tmp_path / "out", resume=True)


def test_known_projections_are_gone_on_with(tmp_path):
    """General distillation's W_e and W_h, saved with the student, begin the task's; of another shape they are drawn anew."""
    teacher = Bert.new(Config(**{**CONFIG.__dict__, "hidden_size": 16}), 9)
    make = lambda: Intermediate(CONFIG, teacher.config, Recipe())
    _, first = fit(tmp_path / "general", make(), teacher=teacher)
    known = known_projections(str(tmp_path / "general"), Recipe(), CONFIG.num_hidden_layers)
    assert set(known) == {"fit_dense_embedding.weight", "fit_dense_hidden.weight"}
    assert not known_projections(str(tmp_path / "general"), Recipe(carry_projections=False), CONFIG.num_hidden_layers)
    known["fit_dense_embedding.weight"] = known["fit_dense_embedding.weight"][:, :-1]
    begun, drawn = (Learner(Bert.new(CONFIG, 7), make(), Workers(1), NOBODY, 5, p).student.parameters for p in (known, None))
    assert (begun["fit_dense_hidden.weight"] == first.student.parameters["fit_dense_hidden.weight"]).all()
    assert (begun["fit_dense_embedding.weight"] == drawn["fit_dense_embedding.weight"]).all()
    assert not (drawn["fit_dense_hidden.weight"] == begun["fit_dense_hidden.weight"]).any()


def test_projections_are_trained_and_resumed_too(tmp_path):
    teacher = Bert.new(Config(**{**CONFIG.__dict__, "hidden_size": 16}), 9)
    make = lambda: Intermediate(CONFIG, teacher.config, Recipe(projection_bias=True))
    _, whole = fit(tmp_path / "whole", make(), teacher=teacher)
    before = Learner(Bert.new(CONFIG, 7), make(), Workers(1), seed=3).student.parameters["fit_dense_hidden.weight"]
    assert np.linalg.norm(whole.student.parameters["fit_dense_hidden.weight"] - before) > 0.01
    saved = Bert.load(tmp_path / "whole")
    assert not any(name.startswith("fit_dense") for name in saved.parameters)
    adam = Adam(Learner(Bert.new(CONFIG, 7), make(), Workers(1), seed=3).student.parameters)
    state = load_state(tmp_path / "whole" / "checkpoint" / "last.safetensors", adam)
    assert state["progress"]["step"] == adam.t == 18
    assert (adam.parameters.flat == whole.student.parameters.flat).all()


def test_the_best_model_is_kept_not_the_last(tmp_path):
    seen = []

    def judge(model):
        seen.append(model.parameters.flat.copy())
        return {"norm": [0.2, 0.9, 0.5][len(seen) - 1]}

    result, learner = fit(tmp_path / "out", evaluate=judge)
    assert result == {"norm": 0.9}
    kept = Bert.load(tmp_path / "out").parameters
    assert all((kept[name] == value).all() for name, value in zip(kept, _named(learner, seen[1]), strict=True))


def test_it_is_judged_every_so_many_steps_and_after_the_last(tmp_path):
    """18 steps, 6 an epoch: at 5, 10, 15 and 18, not where epochs end; stopped and resumed, the same lines and the same best model."""
    options = Options(**{**OPTIONS.__dict__, "eval_every": 5})
    _, whole = fit(tmp_path / "whole", options=options, evaluate=norm_of)
    assert [row["step"] for row in metrics_of(tmp_path / "whole") if "dev" in row] == [5, 10, 15, 18]
    with pytest.raises(Stopped):
        fit(tmp_path / "parts", StopAfter(7), options=options, evaluate=norm_of)
    _, resumed = fit(tmp_path / "parts", resume=True, options=options, evaluate=norm_of)
    assert metrics_of(tmp_path / "parts") == metrics_of(tmp_path / "whole")
    for name in ("model.safetensors", "checkpoint/last.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(InputError, match="the same eval_every: 5 when the run began, 0 now"):
        fit(tmp_path / "parts", resume=True, evaluate=norm_of)


def test_incomplete_batches_may_be_left_out(tmp_path):
    """22 examples in batches of 4: 5 steps an epoch instead of 6, each of four; and none of 22 in batches of 30."""
    sizes = []

    class Sizes(Supervised):
        def __call__(self, student, batch, teacher, parameters):
            sizes.append(batch.size)
            return super().__call__(student, batch, teacher, parameters)

    options = Options(**{**OPTIONS.__dict__, "incomplete_batches": False})
    fit(tmp_path / "out", Sizes(), options=options)
    assert sizes == [4] * 15 and loop.total_steps(22, options) == 15 and loop.total_steps(22, OPTIONS) == 18
    with pytest.raises(InputError, match="22 examples are less than a batch of 30"):
        fit(tmp_path / "more", options=Options(batch_size=30, incomplete_batches=False))


def test_a_warm_up_longer_than_the_run_is_said(tmp_path, capsys):
    fit(tmp_path / "out", options=Options(**{**OPTIONS.__dict__, "warmup": 10_000}))
    assert "rises over 10000 steps and the run has 18" in capsys.readouterr().err


def test_what_no_loss_reaches_does_not_decay(tmp_path):
    teacher = Bert.new(CONFIG, 9)
    for recipe, same in ((Recipe(), False), (Recipe(decay_untouched=False), True)):
        _, learner = fit(tmp_path / str(same), Intermediate(CONFIG, teacher.config, recipe), teacher=teacher)
        for name in ("bert.pooler.dense.weight", "classifier.weight"):
            assert np.array_equal(learner.student.parameters[name], Bert.new(CONFIG, 7).parameters[name]) == same


def _named(learner, flat):
    parameters = type(learner.student.parameters)(learner.student.parameters.layout, flat)
    return [parameters[name] for name in parameters]


def test_two_threads_learn_what_one_does(tmp_path):
    _, one = fit(tmp_path / "one")
    _, two = fit(tmp_path / "two", threads=2)
    _, again = fit(tmp_path / "again", threads=2)
    assert np.linalg.norm(one.student.parameters.flat - two.student.parameters.flat) < 1e-3 * np.linalg.norm(one.student.parameters.flat)
    assert (two.student.parameters.flat == again.student.parameters.flat).all()


@pytest.mark.parametrize("change", [{"lr": 2e-2}, {"batch_size": 5}, {"epochs": 4}, {"seed": 1}])
def test_resuming_with_other_settings_is_refused_by_name(tmp_path, change):
    fit(tmp_path / "out")
    with pytest.raises(InputError, match=f"same {next(iter(change))}"):
        fit(tmp_path / "out", resume=True, options=Options(**{**OPTIONS.__dict__, **change}))


def test_a_damaged_checkpoint_is_one_clear_line(tmp_path):
    fit(tmp_path / "out")
    path = tmp_path / "out" / "checkpoint" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"last\.safetensors: not a checkpoint"):
        fit(tmp_path / "out", resume=True)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    with np.errstate(all="ignore"), pytest.raises(InputError, match="smaller --lr"):
        fit(tmp_path / "out", options=Options(**{**OPTIONS.__dict__, "lr": 1e30}), evaluate=norm_of)
    assert not (tmp_path / "out" / "model.safetensors").exists() and not (tmp_path / "out" / "checkpoint").exists()


def test_a_metric_that_is_no_number_stops_the_run(tmp_path):
    with pytest.raises(InputError, match="step 6: the dev metric norm is not a number"):
        fit(tmp_path / "out", evaluate=lambda model: {"norm": float("nan")})
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert "NaN" not in (tmp_path / "out" / "metrics.jsonl").read_text()


@pytest.mark.parametrize("part", ["parameters", "m", "v"])
def test_a_state_that_is_not_finite_is_not_saved(tmp_path, monkeypatch, part):
    """The loss of a step is that of the weights before it, and a moment that is infinite is in no loss at all."""
    step = Adam.step

    def overflow(self, gradients, rate):
        step(self, gradients, rate)
        if self.t == 4:
            getattr(self, part)["bert.pooler.dense.bias"][0] = np.inf

    monkeypatch.setattr(Adam, "step", overflow)
    with pytest.raises(InputError, match=r"step 4.*: tensor bert\.pooler\.dense\.bias has numbers that are not finite"):
        fit(tmp_path / "out", evaluate=norm_of)
    assert not (tmp_path / "out" / "checkpoint").exists()


@pytest.mark.parametrize("warmup", [float("nan"), -0.1, 1.1])
def test_warm_up_is_a_share(warmup):
    with pytest.raises(InputError, match="--warmup"):
        Options(warmup=warmup)


def test_losses_fall_and_time_is_written(tmp_path):
    start = time.monotonic()
    fit(tmp_path / "out", options=Options(epochs=12, batch_size=4, lr=1e-2, log_every=6))
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["losses"]["cross_entropy"] < 0.6 * rows[0]["losses"]["cross_entropy"]
    assert rows[-1]["seconds"] <= time.monotonic() - start + 1
    assert rows[0]["lr"] > 0 and rows[-1]["lr"] < rows[2]["lr"]


def test_going_on_with_other_passes_is_said(tmp_path, monkeypatch, capsys):
    """Their bits differ, to rounding."""
    with pytest.raises(Stopped):
        fit(tmp_path / "out", StopAfter(5, signal.SIGINT))
    monkeypatch.setenv("MINITINYBERT_QUIET", "")
    fit(tmp_path / "same")
    assert "goes on with" not in capsys.readouterr().err
    begun = loop._passes()
    monkeypatch.setattr(loop, "_passes", lambda: "someone")
    fit(tmp_path / "out", resume=True)
    assert f"begun with passes by {begun}, goes on with someone:" in capsys.readouterr().err


def test_going_on_with_other_threads_is_said(tmp_path, monkeypatch, capsys):
    """The shares of a batch are others, and their sums are rounded otherwise."""
    for name in ("same", "other"):
        with pytest.raises(Stopped):
            fit(tmp_path / name, StopAfter(5, signal.SIGINT), threads=2)
    monkeypatch.setenv("MINITINYBERT_QUIET", "")
    fit(tmp_path / "same", resume=True, threads=2)
    assert "begun with" not in capsys.readouterr().err
    fit(tmp_path / "other", resume=True, threads=1)
    said = [line for line in capsys.readouterr().err.splitlines() if "begun with" in line]
    assert said == ["begun with threads 2, goes on with 1: equal to rounding, no longer bit for bit"]


TORN = [
    b'{"step": 9, "los',
    b"{",
    b'{"step": 3}',
    b"\xff\xfe\x00",
    b"\0" * 4096,
    b"[" * 100_000 + b"\n",
    b"[3]\n",
    b'"a"\n',
    b'{"step": null}\n',
]


@pytest.mark.parametrize("left", TORN)
def test_a_torn_line_of_metrics_does_not_stop_a_run_that_goes_on(tmp_path, monkeypatch, capsys, left):
    """What a power cut leaves: half a line, pages of zeros, garbage, at the end or before it."""
    fit(tmp_path / "whole")
    for name, place in (("end", 99), ("begin", 0)):
        out = tmp_path / name
        with pytest.raises(Stopped):
            fit(out, StopAfter(8, signal.SIGINT))
        lines = (out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        lines.insert(place, left if place else left + b"\n")
        (out / "metrics.jsonl").write_bytes(b"".join(lines))
        monkeypatch.setenv("MINITINYBERT_QUIET", "")
        _, resumed = fit(out, resume=True)
        monkeypatch.setenv("MINITINYBERT_QUIET", "1")
        said = capsys.readouterr().err.count("torn or damaged")
        expected = metrics_of(tmp_path / "whole")
        if left == b'{"step": 3}' and not place:
            expected.insert(0, {"step": 3})  # with its line's end it is a line
        else:
            assert said == 1
        assert metrics_of(out) == expected
        assert Bert.load(out).parameters.flat.tobytes() == Bert.load(tmp_path / "whole").parameters.flat.tobytes()


def test_a_checkpoint_does_not_outlive_the_lines_before_it(tmp_path, monkeypatch):
    """After a power cut a file holds what was synced."""
    seen = []
    real = loop.save_state
    monkeypatch.setattr(loop, "sync", lambda path: seen.append((path.name, len(path.read_bytes().splitlines()))))
    monkeypatch.setattr(loop, "save_state", lambda path, *rest: (seen.append(path.name), real(path, *rest)))
    fit(tmp_path / "out", options=EVERY_LINE)
    assert seen == [
        ("metrics.jsonl", 6),
        "last.safetensors",
        ("metrics.jsonl", 12),
        "last.safetensors",
        ("metrics.jsonl", 18),
        "last.safetensors",
    ]
