"""The training loop: batches, steps, a line of metrics now and then, evaluation an epoch,
checkpoints, and going on from one.

Everything random is a function of (seed, epoch) or (seed, step), so the state is parameters,
moments, step, best result. A run that was stopped and resumed ends with bit-identical weights (same
machine, same number of threads, numba's passes or NumPy's as it began).

    out/config.json, model.safetensors, …   the best model by the dev metric, or the last where there is none
    out/metrics.jsonl                        one JSON object a line
    out/checkpoint/last.safetensors          the state to go on from
    out/run.json                             that the run has ended (left.py)
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import extras
from ..data.batching import TrainingExamples, epoch_batches
from ..engine.device import KERNELS, array_module, to_host
from ..errors import InputError
from ..files import json_text, replacing, sync, writing
from ..model.bert import Bert
from ..progress import log, progress
from .cut import rank_share_of
from .left import ended, note_end, state_file
from .optim import PRESETS, SCHEDULES, Adam
from .shares import Learner
from .state import is_count, load_state, read_state, save_state


@dataclass(frozen=True)
class Options:
    """How long and how fast. InputError for values out of range."""

    epochs: float = 3.0  # passes over the examples; parts of one too
    batch_size: int = 32  # examples a step
    lr: float = 5e-5  # the highest learning rate
    warmup: float = 0.1  # the share of all steps over which the learning rate rises; above 1: their number
    schedule: str = "linear"
    optimizer: str = "adamw"
    seed: int = 0
    log_every: int = 50  # steps; the losses are read this often
    save_every: int = 500  # steps, besides every epoch's end
    eval_every: int = 0  # steps between evaluations, besides the last step's; 0: at every epoch's end
    incomplete_batches: bool = True  # False: where examples are left over from an epoch's last whole batch, they are not trained on

    def __post_init__(self) -> None:
        for name, choices in (("schedule", SCHEDULES), ("optimizer", PRESETS)):
            if getattr(self, name) not in choices:
                raise InputError(f"--{name} {getattr(self, name)}: choose one of {', '.join(choices)}")
        for name in ("epochs", "batch_size", "lr", "log_every", "save_every"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: a number above 0 is needed")
        if not 0 <= self.warmup < math.inf or (self.warmup > 1 and self.warmup % 1):
            raise InputError(f"--warmup {self.warmup}: a share of the steps from 0 to 1, or a whole number of steps, is needed")
        if self.eval_every < 0:
            raise InputError(f"eval_every {self.eval_every}: a number of steps is needed, or 0 for once an epoch")

    def warmup_of(self, total: int) -> float:
        """Over how many of `total` steps the learning rate rises: BertAdam takes a share as it is,
        others round it to steps."""
        if self.warmup > 1:
            return self.warmup
        return self.warmup * total if self.optimizer == "bert-adam" else round(self.warmup * total)


class Stopped(Exception):
    """The run was asked to stop (SIGINT, SIGTERM) and left a checkpoint. `signal` is the signal's
    number."""

    def __init__(self, signal_number: int, step: int):
        super().__init__(f"stopped after step {step}; the same command with --resume goes on from there")
        self.signal = signal_number


@dataclass
class Progress:
    """What a checkpoint holds besides arrays."""

    step: int = 0
    best: float | None = None
    window: dict[str, float] = field(default_factory=dict)  # sums of the losses since the last line of metrics
    window_steps: int = 0

    @classmethod
    def read(cls, raw: Any, path: Path) -> Progress:
        """From a checkpoint's JSON; InputError where it is not what one holds."""
        kinds: dict[str, Callable[[Any], bool]] = {
            "step": is_count,
            "best": lambda value: value is None or _is_number(value),
            "window": _are_numbers,
            "window_steps": is_count,
        }
        if not isinstance(raw, dict) or raw.keys() != kinds.keys():
            raise InputError(f"{path}: does not hold how far a run has come; remove it to start again")
        for name, fits in kinds.items():
            if not fits(raw[name]):
                raise InputError(f"{path}: {name} is not what a run left there; remove it to start again")
        return cls(**raw)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf


def _are_numbers(values: Any) -> bool:
    return isinstance(values, dict) and all(map(_is_number, values.values()))


def train(
    learner: Learner,
    examples: TrainingExamples,
    options: Options,
    out: Path,
    evaluate: Callable[[Bert], dict[str, float]] | None = None,
    metric: str | None = None,
    resume: bool = False,
    description: str = "train",
    conditions: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    starting: str | None = None,
) -> dict[str, float]:
    """Train `learner.student` on `examples`; returns the best value of `metric` by its name,
    {} without `evaluate`.

    evaluate(model) -> metrics, after every epoch; `metric` names the one that decides which model
    is kept. `conditions`: what else has to be the same for a run to go on. `about`: what the first
    line of metrics tells of the run ("run"), besides `description` and its settings. `starting`: the
    digest of the weights that it began with, where these are no longer there. Raises Stopped on a
    signal, InputError where `out` holds another run.
    """
    run = _Run(learner, examples, options, Path(out), evaluate, metric, conditions, starting)
    run.about = {"what": description, **(about or {}), "settings": run.settings}
    if run.start(resume):
        return run.result()
    if options.schedule == "linear" and options.warmup_of(run.total) >= run.total and run.ranks.first:
        log(f"warning: the learning rate rises over {options.warmup_of(run.total):g} steps and the run has {run.total}; give --warmup")
    if array_module(learner.student.parameters.flat) is np and run.ranks.first:
        _say_whose_passes()
    with _StopSignals() as stop:
        bar = progress(range(run.at.step, run.total), run.total, description, initial=run.at.step)
        for step in bar:
            bar.set(**run.step(step))
            signal_number = run.ranks.most(stop.signal or 0)  # whoever was asked to stop, all do
            if signal_number and run.at.step < run.total:
                run.save()
                raise Stopped(signal_number, run.at.step)
    return run.finish()


def _passes() -> str:
    """Whose passes a CPU's step is made of: their bits differ."""
    return "numba" if KERNELS["cpu"] else "NumPy"


@functools.cache
def _say_whose_passes() -> None:
    """Once: on a CPU a step's time depends on it."""
    if KERNELS["cpu"]:
        log(f"passes by {_passes()}")
    elif os.environ.get("MINITINYBERT_NUMBA") == "0":
        log("plain NumPy passes: MINITINYBERT_NUMBA=0")
    else:
        log(f"plain NumPy passes; {extras.no_numba()}")


class _Run:
    def __init__(self, learner, examples, options, out, evaluate, metric, conditions, starting):
        self.learner, self.examples, self.options, self.out = learner, examples, options, out
        self.evaluate, self.metric = evaluate, metric
        self.metrics = out / "metrics.jsonl"
        self.ranks = learner.workers.ranks
        self.adam = Adam(learner.student.parameters, PRESETS[options.optimizer], learner.workers, learner.untouched)
        self.epoch_steps = steps_of_epoch(len(examples), options)
        self.total = total_steps(len(examples), options)
        self.at = Progress()
        self.settings = self._settings(conditions or {}, starting)
        self.bits = {"passes": _passes(), "threads": learner.workers.threads, "ranks": self.ranks.size}
        self.epoch: int | None = None
        self.means: dict[str, float] = {}
        self.about: Mapping[str, Any] = {}
        self.unread: list[dict[str, Any]] = []  # the losses of the last steps; reading one waits for a GPU, adding them is a launch
        self.started = time.monotonic()

    def start(self, resume: bool) -> bool:
        """From the checkpoint, where there is one and it is asked for; refuses to write over
        another run. True where that has ended, and its state is no longer needed."""
        path, end = state_file(self.out), ended(self.out)
        if resume and end is not None and not path.exists():
            _same_run(end["settings"], self.settings, self.out / "run.json")
            self.at = Progress(step=end["step"], best=end["best"])
            if self.ranks.first:
                log(f"{self.out}: nothing to do, the run has ended at step {self.at.step}")
            return True
        if resume and path.exists():
            state = load_state(path, self.adam)
            self._check_state(str(path))
            _same_run(state.get("settings"), self.settings, path)
            self.at = Progress.read(state.get("progress"), path)
            if self.at.step > self.total:
                raise InputError(f"{path}: step {self.at.step} of a run of {self.total}; remove it to start again")
            if self.ranks.first:
                _say_whose_bits(state, self.bits)
                _keep_lines(self.metrics, self.at.step)
            else:
                self.at.window = {}
        else:
            self._check_free(path, resume)
            if self.ranks.first:
                _keep_lines(self.metrics, 0)  # of a run that ended before its first checkpoint
        self.out.mkdir(parents=True, exist_ok=True)
        self.ranks.wait()  # nobody writes before all have looked
        return False

    def _check_free(self, checkpoint: Path, resume: bool) -> None:
        """InputError where `out` holds a run that is not to be gone on with, or a model that no run
        of ours left there."""
        begun = checkpoint.exists() or self.metrics.exists()
        if begun and not resume:
            raise InputError(f"{self.out}: holds a run already; choose a new --out, or go on with --resume")
        if not begun and (self.out / "model.safetensors").exists():
            raise InputError(f"{self.out}: holds a model, which this run would replace; choose a new --out")

    def step(self, step: int) -> dict[str, float]:
        """Step number `step`, and what is due after it; the last mean losses."""
        epoch, index = divmod(step, self.epoch_steps)
        if epoch != self.epoch:
            self.epoch, self.lengths = epoch, self.examples.lengths(epoch)
            o = self.options
            self.batches = epoch_batches(self.lengths, o.batch_size, o.seed, epoch, o.incomplete_batches)
        share = rank_share_of(self.examples, self.batches[index], self.lengths, epoch, self.ranks)
        losses, gradients = self.learner.gradients_of_share(share, step)
        self.adam.step(gradients, self.rate(step))
        self.unread.append(losses)
        self.at.window_steps += 1
        self.at.step = step + 1
        if self.at.step % self.options.log_every == 0:
            self.log()  # before a checkpoint is saved, whose window then begins anew
        ends = self.at.step % self.epoch_steps == 0 or self.at.step == self.total
        if self._judged_now(ends):
            self.judge()
        if ends or self.at.step % self.options.save_every == 0:
            self.save()
        return self.means

    def _judged_now(self, ends: bool) -> bool:
        """Every so many steps, or where an epoch ends; after the last step in any case."""
        every = self.options.eval_every
        if not every or self.evaluate is None:
            return ends
        return self.at.step % every == 0 or self.at.step == self.total

    def rate(self, step: int) -> float:
        o = self.options
        return o.lr * SCHEDULES[o.schedule](step, self.total, o.warmup_of(self.total))

    def log(self) -> None:
        """The mean losses since the last line, to metrics.jsonl."""
        self._gather()
        means = {name: total / self.at.window_steps for name, total in self.at.window.items()}
        self.means = {name: mean for name, mean in means.items() if "." not in name}
        layers = {name: mean for name, mean in means.items() if "." in name}  # as hidden.2
        self.at.window, self.at.window_steps = {}, 0
        row: dict[str, Any] = {"step": self.at.step, "epoch": round(self.at.step / self.epoch_steps, 4), "lr": self.rate(self.at.step - 1)}
        row |= {"seconds": round(time.monotonic() - self.started, 1), "losses": self.means}
        self._write({**row, "layers": layers} if layers else row)

    def judge(self) -> None:
        """On dev, where there is one; the model is kept where it is the best so far."""
        if self.at.step == self.total and 2 * self.at.window_steps >= min(self.options.log_every, self.total):
            self.log()  # a shorter rest would be too noisy a mean
        self._gather()  # a model whose loss is no number is not kept
        if self.evaluate is not None:
            result = self.evaluate(self.learner.student)
            bad = [name for name, value in result.items() if not math.isfinite(value)]
            if bad:  # nothing is better or worse than NaN
                raise InputError(f"step {self.at.step}: the dev metric {bad[0]} is not a number; try a smaller --lr")
            self._write({"step": self.at.step, "dev": result})
            if best := self.at.best is None or result[self.metric] > self.at.best:
                self.at.best = result[self.metric]
            if self.ranks.first:
                scores = ", ".join(f"{name} {value:.4f}" for name, value in result.items())
                log(f"step {self.at.step}/{self.total}: dev {scores}{' (best so far)' if best else ''}")
            if best:
                self._save_model()

    def finish(self) -> dict[str, float]:
        if self.evaluate is None:
            self._save_model()
        if self.ranks.first:
            note_end(self.out, self.settings, self.at.step, self.at.best)
        self.ranks.wait()  # the files are there for all
        return self.result()

    def result(self) -> dict[str, float]:
        return {self.metric: self.at.best or 0.0} if self.evaluate is not None else {}

    def _save_model(self) -> None:
        if self.ranks.first:
            self.learner.student.save(self.out)

    def _check_state(self, where: str) -> None:
        """InputError where a weight or one of its moments is not finite: no step puts that right."""
        for part, values in (("", self.adam.parameters), (" of the first moments", self.adam.m), (" of the second moments", self.adam.v)):
            values.check_finite(where + part)

    def save(self) -> None:
        self._gather()
        self._check_state(f"step {self.at.step}")
        if not self.ranks.first:
            return
        with writing(self.metrics):
            if self.metrics.exists():
                sync(self.metrics)  # a checkpoint does not outlive the lines before it
        state = {"progress": asdict(self.at), "settings": self.settings, **self.bits}
        save_state(state_file(self.out), self.adam, state)

    def _gather(self) -> None:
        """The sums of the losses since the last line, over all ranks, to the first of them. Here,
        and only here, losses are read. InputError where one is no number any more."""
        for name in dict.fromkeys(name for losses in self.unread for name in losses):
            values = [losses[name] for losses in self.unread if name in losses]
            for value in to_host(array_module(values[0]).stack(values)).tolist():
                _add_to(self.at.window, {name: value})
        self.unread = []
        total: dict[str, float] = {}
        for part in self.ranks.gather(self.at.window):
            _add_to(total, part)
        bad = [name for name, value in total.items() if not math.isfinite(value)]
        if bad:
            raise InputError(f"step {self.at.step}: the loss {bad[0]} is not a number any more; try a smaller --lr")
        self.at.window = total if self.ranks.first else {}

    def _settings(self, conditions: Mapping[str, Any], starting: str | None) -> dict[str, Any]:
        """What must be the same for a run to go on; worked out before anything is learned."""
        student = self.learner.student
        counted = {"examples": len(self.examples), "shape": student.config.shape}
        weights = starting or digest(to_host(student.parameters.flat))
        return {**conditions, **_steering(self.options), **self.examples.settings, **counted, "starting weights": weights}

    def _write(self, row: dict[str, Any]) -> None:
        if not self.ranks.first:
            return
        with writing(self.metrics), open(self.metrics, "a", encoding="utf-8") as file:
            first = file.tell() == 0
            file.write(json_text({**row, "run": self.about} if first else row) + "\n")


def _add_to(totals: dict[str, float], values: Mapping[str, float]) -> None:
    for name, value in values.items():
        totals[name] = totals.get(name, 0.0) + value


def finished(out: Path, examples: TrainingExamples, options: Options) -> bool:
    """Whether `out` holds the state of a run over these examples that has no step left, or one whose
    state is gone."""
    path = state_file(out)
    if not path.exists():
        return ended(out) is not None
    return Progress.read(read_state(path).get("progress"), path).step >= total_steps(len(examples), options)


def nothing_to_do(out: Path, options: Options, conditions: Mapping[str, Any]) -> bool:
    """Whether `out` holds a run of these options that has ended, and whose state is gone: what its
    examples are made of need not be made again. InputError where the options, or `conditions`, are
    others."""
    end = None if state_file(out).exists() else ended(out)
    if end is None:
        return False
    _same_run(end["settings"], {**_steering(options), **conditions}, Path(out) / "run.json")
    log(f"{out}: nothing to do, the run has ended at step {end['step']}")
    return True


def _steering(options: Options) -> dict[str, Any]:
    return {name: value for name, value in asdict(options).items() if name not in ("log_every", "save_every")}


def steps_of_epoch(examples: int, options: Options) -> int:
    """InputError where not one batch is whole, and others are left out."""
    if options.incomplete_batches:
        return -(-examples // options.batch_size)
    if examples < options.batch_size:
        raise InputError(f"{examples} examples are less than a batch of {options.batch_size}; give a smaller --batch-size")
    return examples // options.batch_size


def total_steps(examples: int, options: Options) -> int:
    return max(1, round(options.epochs * steps_of_epoch(examples, options)))


def digest(weights: np.ndarray) -> str:
    """A few characters that tell contents apart: a run goes on with the same weights, wherever they
    lie."""
    return hashlib.blake2b(np.ascontiguousarray(weights).view(np.uint8).data, digest_size=6).hexdigest()


def _same_run(then: Any, now: dict[str, Any], path: Path) -> None:
    if not isinstance(then, dict):
        raise InputError(f"{path}: does not hold a run's settings; remove it to start again")
    for name, value in json.loads(json.dumps(now)).items():
        if then.get(name) != value:
            raise InputError(f"{path}: --resume needs the same {name}: {then.get(name)} when the run began, {value} now")


def _say_whose_bits(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """A line for whatever is not as it was when the run began, and with which a sum is rounded
    otherwise."""
    for name, value in now.items():
        if then.get(name, value) != value:
            what = f"{name} by {then[name]}" if name == "passes" else f"{name} {then[name]}"
            log(f"begun with {what}, goes on with {value}: equal to rounding, no longer bit for bit")


def _keep_lines(path: Path, step: int) -> None:
    """Drop the lines of steps after `step`, which will be written again, and what a killed process
    or a power cut has left of a line."""
    if not path.exists():
        return
    there = [line for line in path.read_bytes().splitlines(keepends=True) if line.strip()]
    steps = [_step_of(line) for line in there]
    if torn := steps.count(None):
        log(f"warning: {path}: {torn} lines are none of a run's, torn or damaged; they are dropped")
    with replacing(path) as beside:
        beside.write_bytes(b"".join(line for line, at in zip(there, steps, strict=True) if at is not None and at <= step))


def _step_of(line: bytes) -> int | None:
    """The step of a whole line of metrics; None of anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = row.get("step") if isinstance(row, dict) and line.endswith(b"\n") else None
    return step if isinstance(step, int) else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl that are whole: {"step", "losses": {name: value}}, perhaps
    with "layers" ({"hidden.2": value}: what a loss is the sum of), or
    {"step", "dev": {name: value}}; the first also has "run" (`train`'s `about`). InputError where it
    cannot be read."""
    try:
        rows = [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if _step_of(line) is not None]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    return [row for row in rows if all(_are_numbers(row.get(name, {})) for name in ("losses", "layers", "dev"))]


class _StopSignals:
    """Within the block, the first SIGINT or SIGTERM is only noted in `signal`; a second one acts as
    usual."""

    def __enter__(self) -> _StopSignals:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: whoever is, deals with signals
                break
        return self

    def _note(self, number: int, frame: Any) -> None:
        self.signal = number
        signal.signal(number, self._previous[number])

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
