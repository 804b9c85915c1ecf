"""The paper's ablations (section 4.4, tables 2–4) on one task: what each procedure, each objective
and the layer map are worth.

The variants are in variants.py, their report is in report.py.

Where one thing is taken away all others stay: w/o TD is fine-tuned on the augmented data too. For
regression the second step learns from the task's own data (paper, section 4.2, on STS-B): a changed
sentence no longer deserves its score. So do the labels of w/o Pred (section 4.5.2).

    out/general/<terms>-<map>            a student after GD, shared by the variants that have the same, and by all seeds
    out/general/mlm                      one that was pre-trained itself (table 7)
    out/<variant>/seed-<s>/intermediate  after TD's first step (w/o Pred goes on from that of "full")
    out/<variant>/seed-<s>               the student, and result.json, written when it is finished
    out/answers                          what the teacher has said (training/answers.py), until all runs are finished
    out/report.json, ablation.png        after every run, all that is finished
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...data.glue import Task, read_split
from ...data.metrics import of_constant
from ...data.tokenizer import Tokenizer
from ...distillation.distill import Intermediate, layer_map
from ...distillation.recipes import DEFAULT, Recipe
from ...errors import InputError
from ...files import is_free, read_json, write_json
from ...machine import Machine
from ...model.bert import Bert
from ...model.config import Config
from ...progress import log
from ...training.answers import Answers
from ...training.loop import Options
from ...training.plan import Given, Plan, general_options, plan_of
from ..answer import main_score
from ..corpus import Text, distill_general, pretrain
from ..plots import ablation_chart, save
from ..shape import parse_shape
from ..task import check_teacher, distill_task, load_teacher
from ..task_data import TaskData
from .report import summarise
from .variants import FULL, GD_ONLY, VARIANTS, Procedure, Variant, choose


def run(
    teacher: str,
    task: Task,
    data: Path,
    out: Path,
    machine: Machine,
    *,
    student_shape: str,
    general_teacher: str | None = None,
    corpus: Text | None = None,
    augmented: Path | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    variants: Sequence[str] | None = None,
    recipe: Recipe = DEFAULT,
    general: Given = None,
    intermediate: Given = None,
    prediction: Given = None,
    max_length: int | None = None,
    cache_gb: float | None = None,
    teacher_cache: Path | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Train every variant with every seed in directory `out`; the report (see `summarise`), also in
    out/report.json.

    teacher: fine-tuned on the task; general_teacher: only pre-trained, asked about `corpus`;
    augmented: a directory in the task's layout whose training file is augmented. Without a corpus,
    or without augmented data, no variant has that procedure and the one that would leave it out is
    dropped. resume: finished runs are skipped, an unfinished one goes on, seeds and variants may be
    added. cache_gb, teacher_cache: as of distill_task; without the second the answers lie in `out`
    until the study is finished.

    InputError where an input does not fit, before anything is trained; Stopped on a signal.
    """
    chosen = choose(variants)
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {' '.join(map(str, seeds))}: one or more, each once")
    study = _Study(
        teacher, task, Path(data), Path(out), machine, student_shape, general_teacher, corpus, augmented, recipe,
        general_options(recipe, general), plan_of(recipe, task, max_length, intermediate, prediction), cache_gb,
        Answers(cache_gb, teacher_cache or Path(out) / "answers", own=teacher_cache is None),
    )  # fmt: skip
    score, kept, left_out = study.check(chosen)
    study.begin(resume)
    values: dict[str, dict[int, float]] = {variant.name: {} for variant in kept}
    constant = study.constant()
    for seed in seeds:
        for variant in kept:
            log(f"ablation: {variant.name}, seed {seed}")
            values[variant.name][seed] = 100 * main_score(study.result(variant, seed), task)
            report = summarise(values, task.name, constant)
            report |= {"metric": task.main_metric, "teacher": 100 * score, "left_out": left_out}
            write_json(study.out / "report.json", report)
            save(ablation_chart(report), study.out / "ablation.png")
    if machine.workers.ranks.first and (study.out / "answers").exists():
        shutil.rmtree(study.out / "answers")
    return report


def checked(results: dict[str, Any], task: Task, path: Path) -> dict[str, Any]:
    """Results as they were kept; InputError where they are none of the task's."""
    for metrics in results.values() or [None]:
        if not isinstance(metrics, dict) or type(metrics.get(task.main_metric)) not in (int, float):
            raise InputError(f"{path}: has no {task.main_metric}; remove {path.parent}, and --resume makes it anew")
    return results


@dataclass(frozen=True)
class _Study:
    """The inputs of `run`, and the stages on them."""

    teacher: str
    task: Task
    data: Path
    out: Path
    machine: Machine
    student: str
    general_teacher: str | None
    corpus: Text | None
    augmented: Path | None
    recipe: Recipe
    general: Options
    plan: Plan
    cache_gb: float | None
    answers: Answers

    # --------------------------------------------------------------------------------------------------- before anything is trained

    def check(self, chosen: Sequence[Variant]) -> tuple[float, list[Variant], dict[str, str]]:
        """The teacher's score, the variants that differ from "full" with these inputs, and {those
        that do not: why}."""
        if (self.corpus is None) != (self.general_teacher is None):
            raise InputError("general distillation needs both a corpus and a general teacher (pre-trained, not fine-tuned)")
        if self.recipe.layers != "uniform":
            raise InputError(f"recipe: layers is {self.recipe.layers!r}; the ablation sets the layer map itself and starts from uniform")
        if self.augmented is not None:
            self._check_same_dev(Path(self.augmented))
        master = load_teacher(self.teacher, self.task, self.machine, self.recipe)
        files = TaskData(self.task, self.data, Tokenizer.load(master.tokenizer_files), self.plan.max_length, master)
        config = replace(master.config, **parse_shape(self.student))
        Intermediate(config, master.config, self.recipe)  # refuses heads or widths that do not fit
        self._check_general(config, files.tokenizer)
        score = check_teacher(self.teacher, master, files, self.machine)[self.task.main_metric]
        reasons = {v.name: self._same_as_full(v.procedure, config, master.config) for v in chosen if v is not FULL}
        left_out = {name: reason for name, reason in reasons.items() if reason}
        for name, reason in left_out.items():
            log(f"{name} is left out: {reason}")
        return score, [v for v in chosen if v.name not in left_out], left_out

    def _check_general(self, student: Config, tokenizer: Tokenizer) -> None:
        if self.corpus is None or self.general_teacher is None:
            return
        missing = [str(file) for file in self.corpus.files if not Path(file).is_file()]
        if missing:
            raise InputError(f"--corpus {missing[0]}: no such file")
        master = Bert.load(self.general_teacher, head="none")
        tokenizer.check_same_vocabulary(Tokenizer.load(master.tokenizer_files))
        Intermediate(student, master.config, self.recipe)
        self.corpus.check_fits(student)
        self.corpus.check_fits(master.config)

    def _same_as_full(self, p: Procedure, student: Config, teacher: Config) -> str:
        """Why a procedure would come to the same as the whole method here; "" where it differs."""
        M, N = student.num_hidden_layers, teacher.num_hidden_layers
        if not p.general and self.corpus is None:
            return "there is no corpus, so that no variant has general distillation"
        if p.pretrained and self.corpus is None:
            return "there is no corpus to pre-train the student on"
        if not p.augmented and self.augmented is None and not p.pretrained:
            return "there is no augmented data, so that " + ("no variant learns from it" if p.distil else "it is w/o TD")
        if p == GD_ONLY.procedure and self.task.labels is None:
            return "of a regression no labels of augmented rows are learned, so that it is w/o TD"
        if p.layers != "uniform" and layer_map(p.layers, M, N) == layer_map("uniform", M, N):
            return f"of {N} layers, {M} by the {p.layers} map are those of the uniform one"
        return ""

    def _check_same_dev(self, augmented: Path) -> None:
        for split in self.task.dev_splits:
            ours, theirs = (read_split(self.task, directory, split) for directory in (self.data, augmented))
            if (ours.texts, ours.pairs) != (theirs.texts, theirs.pairs):
                raise InputError(f"{theirs.path}: other examples than {ours.path}; augmented data needs the task's own dev files beside it")

    def begin(self, resume: bool) -> None:
        """Keeps the inputs in out/settings.json. InputError where `out` holds something, or a study
        of other inputs to go on with."""
        path = self.out / "settings.json"
        now = json.loads(json.dumps(self._settings()))
        if resume and path.exists():
            then = read_json(path)
            for name, value in now.items():
                if then.get(name) != value:
                    raise InputError(f"{path}: --resume needs the same {name}: {then.get(name)} when the study began, {value} now")
            return
        if not is_free(self.out):
            raise InputError(f"{self.out}: not empty; choose a new --out, or go on with --resume")
        self.out.mkdir(parents=True, exist_ok=True)
        write_json(path, now)

    def _settings(self) -> dict[str, Any]:
        """What must be the same for finished runs to be comparable with those to come."""
        stages = {"general": self.general, "intermediate": self.plan.intermediate, "prediction": self.plan.prediction}
        options = {
            f"{stage} {name}": value
            for stage, options in stages.items()
            for name, value in asdict(options).items()
            if name not in ("log_every", "save_every", "optimizer", "schedule")  # the last two are the recipe's
        }
        text = None
        if self.corpus is not None:
            text = {name: value for name, value in asdict(self.corpus).items() if name not in ("shards", "processes")}
            text["files"] = [str(file) for file in self.corpus.files]
        places: dict[str, Any] = {"teacher": self.teacher, "general teacher": self.general_teacher, "data": str(self.data), "corpus": text}
        places["augmented"] = None if self.augmented is None else str(self.augmented)
        rest = {"task": self.task.name, "student": self.student, "recipe": asdict(self.recipe), "max_length": self.plan.max_length}
        return {**places, **rest, **options}

    def constant(self) -> float:
        """100 × the best a constant answer reaches on dev: what a collapsed student has."""
        splits = [read_split(self.task, self.data, split) for split in self.task.dev_splits]
        reached = [of_constant(self.task.main_metric, split.labels) for split in splits if split.labels is not None]
        return 100 * statistics.fmean(reached)

    # --------------------------------------------------------------------------------------------------------------- the stages

    def result(self, variant: Variant, seed: int) -> dict[str, Any]:
        """{dev split: metrics} of the variant's student, trained now or before."""
        p, place = variant.procedure, self._place(variant.procedure, seed)
        plan = self.plan
        last = replace(plan.prediction, seed=seed)
        if not p.distil:
            last = replace(last, epochs=plan.intermediate.epochs + plan.prediction.epochs)

        def work() -> dict[str, Any]:
            student = str(self._intermediate(p, seed)) if p.distil else self._start(p)
            original = self.task.labels is None or (p.distil and not p.soft)  # w/o Pred: the paper's footnote in 4.5.2
            data = self.data if original else self._data(p)
            return distill_task(
                self.teacher, student, self.task, data, place, self.machine, "prediction", replace(plan.intermediate, seed=seed), last,
                self.recipe, plan.max_length, resume=True, hard_labels=not p.soft,
                answers=self.answers,
            )  # fmt: skip

        return checked(_once(place, work), self.task, place / "result.json")

    def _intermediate(self, p: Procedure, seed: int) -> Path:
        """The student after TD's first step; what the second one learns from makes no difference to
        it."""
        place = self._place(replace(p, soft=True), seed)

        def work() -> dict[str, Any]:
            return distill_task(
                self.teacher, self._start(p), self.task, self._data(p), place, self.machine, "intermediate",
                replace(self.plan.intermediate, seed=seed), None, replace(self.recipe, layers=p.layers), self.plan.max_length, resume=True,
                cache_gb=self.cache_gb, weights=p.weights, answers=self.answers,
            )  # fmt: skip

        _once(place / "intermediate", work)
        return place / "intermediate"

    def _place(self, p: Procedure, seed: int) -> Path:
        return self.out / next(v.slug for v in VARIANTS if v.procedure == p) / f"seed-{seed}"

    def _data(self, p: Procedure) -> Path:
        return Path(self.augmented) if p.augmented and self.augmented is not None else self.data

    def _start(self, p: Procedure) -> str:
        """The generally distilled student's directory, made where it is not there; the shape, for
        random weights, without GD."""
        if not p.general or self.corpus is None:
            return self.student
        if p.pretrained:
            place = self.out / "general" / "mlm"
            _once(place, lambda: self._pretrain(place))
            return str(place)
        place = self.out / "general" / f"{'-'.join(p.terms)}-{p.layers}"
        _once(place, lambda: self._distill_general(place, p))
        return str(place)

    def _distill_general(self, place: Path, p: Procedure) -> dict[str, Any]:
        assert self.corpus is not None and self.general_teacher is not None
        text, recipe = (
            replace(self.corpus, shards=self.corpus.shards or self.out / "general" / "corpus"),
            replace(self.recipe, layers=p.layers),
        )
        return distill_general(self.general_teacher, self.student, text, place, self.general, self.machine, recipe, True, p.weights)


    def _pretrain(self, place: Path) -> dict[str, Any]:
        """The student as a masked language model of its own, on the text, with the vocabulary and the
        options of GD."""
        assert self.corpus is not None and self.general_teacher is not None
        text = replace(self.corpus, shards=self.corpus.shards or self.out / "general" / "corpus")
        words = Bert.load(self.general_teacher, head="none").tokenizer_files
        return pretrain(self.student, text, place, self.general, self.machine, words, resume=True)


def _once(place: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` returned when it was done in directory `place`, now or before."""
    path = place / "result.json"
    if not path.exists():
        write_json(path, work())
    return read_json(path)
