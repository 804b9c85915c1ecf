"""The ablations: what each variant hands to the trainer, going on after a stop, and the report's arithmetic."""

import json
import os
import shutil
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from minitinybert.commands import corpus as corpus_command
from minitinybert.commands import kinds
from minitinybert.commands import task as task_command
from minitinybert.commands.ablation import report as ablation_report
from minitinybert.commands.ablation import study
from minitinybert.commands.corpus import Text
from minitinybert.commands.plots import ablation_chart, save
from minitinybert.data.glue import TASKS
from minitinybert.distillation.distill import Intermediate, Prediction
from minitinybert.distillation.objectives import MaskedLM, Supervised
from minitinybert.distillation.recipes import DEFAULT
from minitinybert.errors import InputError
from minitinybert.machine import Machine
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.training import loop
from minitinybert.training.answers import Answers
from minitinybert.training.kept_traces import KeptTraces
from minitinybert.training.loop import Options, Stopped
from minitinybert.training.plan import plan_of

WORDS = ["good", "bad", "fine", "film", "plot", "actor", "the", "a", "is", "very"]
SHAPE = "2L-4D-2H-8F"
TASK = TASKS["sst-2"]
ONE = Options(epochs=1, lr=1e-3, batch_size=16)
TWO = replace(ONE, epochs=2)


def sentences(rng, n):
    for _ in range(n):
        label = int(rng.integers(2))
        yield " ".join([*rng.choice(WORDS[2:], rng.integers(1, 5)), "good" if label else "bad"]), label


def write_task(directory, train, dev):
    directory.mkdir()
    for name, examples in (("train", train), ("dev", dev)):
        lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in examples)]
        (directory / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A general teacher and one of the task, four layers each; 48 sentences, their augmentation to 64, 20 of dev; a corpus."""
    here = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    train, more, dev = (list(sentences(rng, n)) for n in (48, 16, 20))
    write_task(here / "data", train, dev)
    write_task(here / "augmented", train + more, dev)
    (here / "corpus.txt").write_text("".join(text + "\n" for text, _ in train), encoding="utf-8")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (here / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    config = Config(
        vocab_size=len(vocabulary), hidden_size=8, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, initializer_range=0.2,
    )  # fmt: skip
    general = Bert.new(config, 3)
    general.tokenizer_files = {"vocab.txt": here / "vocab.txt"}
    general.save(here / "general")
    with Machine(threads=1) as machine:
        options = Options(epochs=8, lr=1e-2, batch_size=16)
        task_command.finetune(str(here / "general"), TASK, here / "data", here / "teacher", options, machine, 12)
        yield SimpleNamespace(here=here, machine=machine)


def run(world, out, **changes):
    here = world.here
    arguments = {
        "student_shape": SHAPE, "general_teacher": str(here / "general"), "corpus": Text([here / "corpus.txt"], 12), "max_length": 12,
        "augmented": here / "augmented", "seeds": (0,), "general": ONE, "intermediate": TWO, "prediction": ONE, **changes,
    }  # fmt: skip
    return study.run(str(here / "teacher"), TASK, here / "data", out, world.machine, **arguments)


class Trainer:
    """In the trainer's place: keeps what it is handed, and saves the student with other weights at every call."""

    def __init__(self):
        self.calls = {}

    def __call__(self, learner, examples, options, out, *rest, **more):
        known = (*SLUGS, *GENERAL.values(), "mlm", "seed-0", "seed-1", "seed-2", "intermediate")
        place = "/".join(part for part in out.parts if part in known)
        assert place not in self.calls, f"{place} is trained twice"
        self.calls[place] = SimpleNamespace(
            objective=learner.objective, teacher=learner.teacher, examples=len(examples), options=options,
            start={name: learner.student.parameters[name].copy() for name in learner.student.parameters},
        )  # fmt: skip
        learner.student.parameters.flat[:] += 0.01 * len(self.calls)
        learner.student.save(out)
        (out / "metrics.jsonl").touch()


@pytest.fixture(scope="module")
def made(world, tmp_path_factory):
    """All variants and two seeds, no training: {place: what the trainer was handed}, the report, the directory."""
    out, trainer = tmp_path_factory.mktemp("study") / "out", Trainer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_command, "train", trainer)
        patch.setattr(corpus_command, "train", trainer)
        report = run(world, out, seeds=(0, 1))
    return SimpleNamespace(calls=trainer.calls, report=report, out=out)


ALL = {"embedding": 1, "hidden": 1, "attention": 1}
LAYERS = {"full": (2, 4), "top": (3, 4), "bottom": (1, 2)}
WEIGHTS = {
    "without-embd": {**ALL, "embedding": 0},
    "without-trm": {"embedding": 1, "hidden": 0, "attention": 0},
    "without-attn": {**ALL, "attention": 0},
    "without-hidn": {**ALL, "hidden": 0},
}
GENERAL = {
    "full": "embedding-hidden-attention-uniform",
    "without-embd": "hidden-attention-uniform",
    "without-trm": "embedding-uniform",
    "without-attn": "embedding-hidden-uniform",
    "without-hidn": "embedding-attention-uniform",
    "top": "embedding-hidden-attention-top",
    "bottom": "embedding-hidden-attention-bottom",
}
SLUGS = [variant.slug for variant in study.VARIANTS]


def test_the_student_of_table_7_is_pre_trained_itself(made):
    call = made.calls["mlm"]
    assert isinstance(call.objective, MaskedLM) and call.options == ONE
    assert Bert.load(made.out / "general/mlm").config.shape == SHAPE


def same_encoder(parameters, path):
    """Whether the start's encoder is the directory's."""
    saved = Bert.load(path, head="none").parameters
    return all(np.array_equal(parameters["bert." + name.removeprefix("bert.")], saved[name]) for name in saved)


def test_general_distillation_is_done_once_for_each_set_of_terms_and_map(made):
    places = {place for place in made.calls if "seed-" not in place}
    assert places == {*GENERAL.values(), "mlm"}
    for slug, place in GENERAL.items():
        call = made.calls[place]
        assert isinstance(call.objective, Intermediate) and call.objective.teacher_view is not None
        assert call.objective.weights == WEIGHTS.get(slug, ALL) and call.objective.map == LAYERS.get(slug, (2, 4))
        assert call.teacher.model.config.head == "none" and call.options == ONE


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("slug", SLUGS)
def test_the_intermediate_step_of_each_variant(made, slug, seed):
    place = f"{slug}/seed-{seed}/intermediate"
    if slug in ("without-td", "without-pred", "bert-tiny", "gd-only"):  # w/o Pred takes full's, the others have none
        assert place not in made.calls
        return
    call = made.calls[place]
    assert isinstance(call.objective, Intermediate) and call.options == replace(TWO, seed=seed)
    assert call.objective.weights == WEIGHTS.get(slug, ALL) and call.objective.map == LAYERS.get(slug, (2, 4))
    assert call.examples == (48 if slug in ("without-da", "bert-tiny-td") else 64)
    own = "mlm" if slug == "bert-tiny-td" else GENERAL.get(slug, GENERAL["full"])
    for other in (*GENERAL.values(), "mlm"):
        assert same_encoder(call.start, made.out / "general" / other) == (slug != "without-gd" and other == own), other


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("slug", SLUGS)
def test_the_last_step_of_each_variant(made, slug, seed):
    call = made.calls[f"{slug}/seed-{seed}"]
    undistilled = ("without-td", "bert-tiny", "gd-only")
    assert type(call.objective) is (Supervised if slug in (*undistilled, "without-pred") else Prediction)
    assert call.options == replace(ONE, seed=seed, epochs=3 if slug in undistilled else 1)
    original = ("without-da", "without-pred", "bert-tiny", "bert-tiny-td", "gd-only")  # w/o Pred: the original's labels
    assert call.examples == (48 if slug in original else 64)
    before = dict.fromkeys(("without-td", "gd-only"), f"general/{GENERAL['full']}")
    before |= {"without-pred": f"full/seed-{seed}/intermediate", "bert-tiny": "general/mlm"}
    assert same_encoder(call.start, made.out / before.get(slug, f"{slug}/seed-{seed}/intermediate"))


def test_without_general_distillation_seeds_start_from_other_weights(made):
    starts = [made.calls[f"without-gd/seed-{seed}/intermediate"].start for seed in (0, 1)]
    fresh = Bert.new(Bert.load(made.out / "without-gd" / "seed-1").config, 1).parameters
    name = "bert.encoder.layer.0.output.dense.weight"
    assert np.array_equal(starts[1][name], fresh[name]) and not np.array_equal(starts[0][name], starts[1][name])


def test_the_report_has_every_variant_in_the_papers_order(made):
    assert [row["variant"] for row in made.report["results"]] == [v.name for v in study.VARIANTS]
    assert all(set(row["values"]) == {"0", "1"} for row in made.report["results"])
    assert json.loads((made.out / "report.json").read_text()) == made.report
    assert (made.out / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert made.report["left_out"] == {} and made.report["teacher"] > 50
    for slug, row in zip(SLUGS, made.report["results"], strict=True):
        results = json.loads((made.out / slug / "seed-1" / "result.json").read_text())
        assert row["values"]["1"] == 100 * results["dev"]["accuracy"]


def test_regression_learns_its_numbers_from_the_tasks_own_data(world, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(study, "distill_task", lambda *args, **more: calls.append((args[6], args[3])) or {"dev": {"pearson": 0.5}})
    here = world.here
    made = study._Study(
        "teacher", TASKS["sts-b"], here / "data", tmp_path, world.machine, SHAPE, None, None, here / "augmented", DEFAULT, ONE,
        plan_of(DEFAULT, TASKS["sts-b"], 12, TWO, ONE), 0.0, Answers(0.0),
    )  # fmt: skip
    (tmp_path / "full" / "seed-0" / "intermediate").mkdir(parents=True)
    made.result(study.FULL, 0)
    assert calls == [("intermediate", here / "augmented"), ("prediction", here / "data")]
    own = {name: made._same_as_full(study.choose([name])[-1].procedure, Config(), Config()) for name in ("GD only", "w/o TD", "w/o DA")}
    assert own.pop("GD only").endswith("it is w/o TD") and set(own.values()) == {""}


# ------------------------------------------------------------------------------------------------------------- what is left out


def unfolded(text):
    """Its lines as they were before they were broken for a terminal."""
    return text.replace("\n    ", " ")


def test_what_cannot_differ_is_left_out_and_said(world, tmp_path, monkeypatch):
    for module in (task_command, corpus_command):
        monkeypatch.setattr(module, "train", Trainer())
    none = {"general_teacher": None, "corpus": None, "augmented": None}
    table_7 = ["bert-tiny", "BERT-tiny+TD", "gd-only"]
    report = run(world, tmp_path / "out", **none, variants=["w/o GD", "without-da", "W/O Pred", *table_7])
    assert [row["variant"] for row in report["results"]] == ["full", "w/o Pred"]
    assert set(report["left_out"]) == {"w/o GD", "w/o DA", "BERT-tiny", "BERT-tiny+TD", "GD only"}
    assert "no corpus" in report["left_out"]["w/o GD"]
    text = unfolded(ablation_report.format_table(report))
    assert "w/o DA is left out: there is no augmented data" in text
    for module in (task_command, corpus_command):
        monkeypatch.setattr(module, "train", Trainer())
    report = run(world, tmp_path / "four", **none, student_shape="4L-4D-2H-8F", variants=["top", "bottom"])
    assert [row["variant"] for row in report["results"]] == ["full"] and set(report["left_out"]) == {"top", "bottom"}


# --------------------------------------------------------------------------------------------------------------------- going on


class StopAfter(Prediction):
    """Asks this process to stop while step `left` of the prediction steps is being worked on."""

    left = 0

    def __call__(self, *arguments):
        StopAfter.left -= 1
        if StopAfter.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__call__(*arguments)


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    return run(world, out, variants=["w/o DA"], seeds=(0, 1)), out


def test_a_stopped_study_goes_on_to_the_same_bits(world, whole, tmp_path, monkeypatch):
    out, arguments = tmp_path / "out", {"variants": ["w/o DA"], "seeds": (0, 1)}
    with monkeypatch.context() as patch:
        patch.setattr(kinds, "Prediction", StopAfter)
        StopAfter.left = 6  # full has 4 steps, w/o DA 3
        with pytest.raises(Stopped):
            run(world, out, **arguments)
    assert (out / "full/seed-0/result.json").exists() and not (out / "without-da/seed-0/result.json").exists()
    assert (out / "without-da/seed-0/checkpoint/last.safetensors").exists()
    assert run(world, out, **arguments, resume=True) == whole[0]
    for place in ("full/seed-0", "without-da/seed-0", "without-da/seed-1"):
        assert (out / place / "model.safetensors").read_bytes() == (whole[1] / place / "model.safetensors").read_bytes(), place
    assert not list(out.rglob("last.safetensors"))


def test_what_is_finished_is_skipped_and_seeds_and_variants_may_be_added(world, whole, tmp_path, monkeypatch):
    report, done = whole
    shutil.copytree(done, tmp_path / "out")
    trainer = Trainer()
    for module in (task_command, corpus_command):
        monkeypatch.setattr(module, "train", trainer)
    assert run(world, tmp_path / "out", variants=["w/o DA"], seeds=(0, 1), resume=True) == report
    assert trainer.calls == {}
    run(world, tmp_path / "out", variants=["w/o Pred"], seeds=(0, 2), resume=True)
    assert list(trainer.calls) == ["without-pred/seed-0", "full/seed-2/intermediate", "full/seed-2", "without-pred/seed-2"]


def test_a_study_asks_its_teacher_once_for_all_seeds_and_variants_that_look_at_no_more(world, tmp_path, monkeypatch):
    """In one process or in several; the answers go away when the study is finished, but from a directory of the user's."""
    filled, fill, finish = [], KeptTraces._fill, loop._Run.finish
    monkeypatch.setattr(KeptTraces, "_fill", lambda self, values: filled.append(self.path) or fill(self, values))
    study_of = {"variants": ["without-attn"], "seeds": (0, 1), "general_teacher": None, "corpus": None}

    def dies(self):
        if self.out.parent.name == "seed-0" and self.out.parent.parent.name == "without-attn":
            raise KeyboardInterrupt
        return finish(self)

    monkeypatch.setattr(loop._Run, "finish", dies)
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "out", **study_of)
    monkeypatch.setattr(loop._Run, "finish", finish)
    assert len(filled) == 1 and filled[0].is_file() and filled[0].is_relative_to(tmp_path / "out" / "answers")
    run(world, tmp_path / "out", **study_of, resume=True)
    assert len(filled) == 1 and not (tmp_path / "out" / "answers").exists()
    run(world, tmp_path / "kept", **study_of, teacher_cache=tmp_path / "shared")
    run(world, tmp_path / "more", **study_of | {"variants": None, "seeds": (2,)}, teacher_cache=tmp_path / "shared")
    assert not (tmp_path / "kept" / "answers").exists() and filled[1].is_relative_to(tmp_path / "shared")
    assert len(filled) == len(set(filled)) and all(path.is_file() for path in filled[1:])


@pytest.mark.parametrize(
    "change, words",
    [
        ({"prediction": replace(ONE, lr=2e-3)}, "the same prediction lr: 0.001 when the study began, 0.002 now"),
        ({"recipe": replace(DEFAULT, temperature=2.0)}, "the same recipe"),
        ({"student_shape": "2L-8D-2H-8F"}, "the same student"),
        ({"augmented": None}, "the same augmented"),
        ({"max_length": 11}, "the same max_length"),
        ({"general": replace(ONE, epochs=2)}, "the same general epochs"),
    ],
)
def test_another_study_is_not_gone_on_with(world, whole, tmp_path, change, words):
    shutil.copytree(whole[1], tmp_path / "out")
    with pytest.raises(InputError, match=words):
        run(world, tmp_path / "out", resume=True, **change)


# ------------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "change, words",
    [
        ({"variants": ["w/o Everything"]}, "--variants without-everything: choose of full, without-gd"),
        ({"seeds": ()}, "--seeds"),
        ({"seeds": (1, 1)}, "--seeds 1 1"),
        ({"general_teacher": None}, "both a corpus and a general teacher"),
        ({"corpus": None}, "both a corpus and a general teacher"),
        ({"recipe": replace(DEFAULT, layers="top")}, "layers is 'top'"),
        ({"student_shape": "2L-9D-3H-8F"}, "3 attention heads, the teacher 2"),
        ({"student_shape": "5L-4D-2H-8F"}, "5 layers, the teacher 4"),
        ({"corpus": Text([__file__], 40)}, "--max-length 40"),
        ({"corpus": Text(["nowhere.txt"], 12)}, "nowhere.txt: no such file"),
    ],
)
def test_bad_input_is_found_before_anything_is_written(world, tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        run(world, tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


def test_dev_files_need_labels_and_must_be_the_tasks_own(world, tmp_path):
    shutil.copytree(world.here / "data", tmp_path / "data")
    dev = tmp_path / "data" / "dev.tsv"
    dev.write_text("sentence\tlabel\ngood film\t1\nbad plot\t0\n")
    with pytest.raises(InputError, match="other examples than"):
        run(world, tmp_path / "out", augmented=tmp_path / "data")
    dev.write_text("sentence\ngood film\n")
    with pytest.raises(InputError, match="dev.tsv: no column 'label'"):
        study.run(
            str(world.here / "teacher"), TASK, tmp_path / "data", tmp_path / "out", world.machine, student_shape=SHAPE, max_length=12
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_directory_that_holds_something_else_is_left_alone(world, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(InputError, match="not empty"):
            run(world, tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


# ---------------------------------------------------------------------------------------------------------------------- report


VALUES = {"full": {0: 80.0, 1: 82.0, 2: 84.0}, "w/o GD": {0: 81.0, 1: 80.0, 2: 79.0}, "w/o TD": {0: 80.5, 1: 81.5}, "top": {}}


def test_means_deviations_and_differences_by_hand():
    report = ablation_report.summarise(VALUES, "sst-2", 50.9)
    full, gd, td = report["results"]
    assert (full["mean"], full["sd"], full["difference"]) == (82.0, 2.0, 0.0)
    assert (gd["mean"], gd["sd"]) == (80.0, 1.0)
    assert (gd["difference"], gd["difference_sd"]) == (-2.0, 3.0)  # of 1, −2, −5
    assert (td["mean"], td["difference"]) == (81.0, 0.0) and td["difference_sd"] == pytest.approx(0.5**0.5)  # of 0.5, −0.5
    assert (gd["paper"], gd["paper_difference"]) == (72.5, -3.1)
    one = ablation_report.summarise({"full": {0: 80.0}}, "sst-2", 50.9)["results"][0]
    assert (one["mean"], one["sd"]) == (80.0, None)


def test_every_pair_that_the_paper_orders_has_a_verdict():
    values = {**VALUES, "w/o Trm": {0: 70.0, 1: 71.0, 2: 72.5}, "w/o DA": {0: 85.0, 1: 87.1, 2: 89.2}}
    checks = {check["statement"]: check for check in ablation_report.summarise(values, "sst-2", 50.9)["checks"]}
    names = ["full", "w/o GD", "w/o TD", "w/o DA", "w/o Trm"]  # in the order of the paper's means
    assert set(checks) == {f"{more} > {less}" for i, more in enumerate(names) for less in names[i + 1 :]}
    gd = checks["full > w/o GD"]  # 2 ± 3 over 3 seeds
    assert (gd["verdict"], gd["difference"], gd["paper_difference"]) == ("not distinguishable", 2.0, 3.1)
    assert checks["w/o GD > w/o TD"]["difference"] == -0.5  # of 0.5, −1.5
    assert checks["full > w/o Trm"]["verdict"] == "holds"
    assert checks["full > w/o DA"]["verdict"] == "does not hold"
    stats = pytest.importorskip("scipy.stats")
    expected = stats.ttest_rel([80.0, 82.0, 84.0], [70.0, 71.0, 72.5]).pvalue
    assert checks["full > w/o Trm"]["p"] == pytest.approx(expected, rel=1e-9)


def test_one_seed_tells_nothing_and_equal_figures_have_no_order():
    checks = ablation_report.summarise({"full": {0: 90.0}, "w/o Trm": {0: 60.0}}, "sst-2", 50.9)["checks"]
    assert [(check["verdict"], check["p"]) for check in checks] == [("not distinguishable", None)]
    same = {"w/o GD": {0: 1.0}, "w/o Hidn": {0: 2.0}, "full": {0: 3.0}}  # both 84.1 on MRPC
    assert all("w/o Hidn" not in c["statement"] or "full" in c["statement"] for c in ablation_report.summarise(same, "mrpc", 0)["checks"])


def test_the_papers_column_is_of_the_same_task():
    by_name = {v.name: v for v in study.VARIANTS}
    assert by_name["w/o GD"].paper("cola") == 40.8 and by_name["w/o GD"].paper("mrpc") == 84.1
    assert by_name["full"].paper("mnli") == pytest.approx(82.85) and by_name["full"].paper("rte") == pytest.approx(75.6, abs=0.03)
    report = ablation_report.summarise(VALUES, "cola", 0.0)
    assert [row["paper"] for row in report["results"]] == [50.8, 40.8, 28.5] and report["paper_of_this_task"]
    values = {"w/o TD": {0: 1.0}, "w/o DA": {0: 1.0}, "full": {0: 1.0}}
    order = {check["statement"] for check in ablation_report.summarise(values, "cola", 0)["checks"]}
    assert "w/o DA > w/o TD" in order  # 29.8 and 28.5; of the means it is the other way round


def test_collapsed_students_are_named():
    report = ablation_report.summarise({"full": {0: 80.0, 1: 50.9}}, "sst-2", 50.9)
    report |= {"metric": "accuracy", "teacher": 90.0, "left_out": {}}
    assert report["results"][0]["collapsed"] == [1]
    assert "full has collapsed with seed 1: no better than a constant answer, 50.9" in unfolded(ablation_report.format_table(report))


def test_the_table_and_the_chart(tmp_path):
    report = ablation_report.summarise(VALUES, "sst-2", 50.9) | {"metric": "accuracy", "teacher": 90.0, "left_out": {"w/o DA": "no data"}}
    table = ablation_report.format_table(report)
    assert max(map(len, table.splitlines())) <= 80
    lines = unfolded(table).splitlines()
    assert lines[2].split() == ["full", "82.0", "±", "2.0", "(3)", "75.6"]
    assert lines[3].split() == ["w/o", "GD", "80.0", "±", "1.0", "(3)", "-2.0", "±", "3.0", "72.5", "-3.1"]
    assert "w/o GD > w/o TD: not distinguishable, -0.5 ± 1.4, p = 0.7 (paper +4.0)" in lines and "w/o DA is left out: no data" in lines
    assert "The paper's figures are means of MNLI-m, MNLI-mm, MRPC and CoLA: it has none of this task." in lines
    save(ablation_chart(report), tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_the_papers_figures_are_those_of_its_tables():
    assert [(v.name, round(v.paper("average") + 1e-9, 1)) for v in study.VARIANTS] == [
        ("full", 75.6), ("w/o GD", 72.5), ("w/o TD", 68.5), ("w/o DA", 68.4), ("w/o Embd", 74.1), ("w/o Pred", 73.5), ("w/o Trm", 56.3),
        ("w/o Attn", 71.0), ("w/o Hidn", 72.9), ("top", 70.9), ("bottom", 71.3),
        ("BERT-tiny", 63.9), ("BERT-tiny+TD", 63.6), ("GD only", 61.1),
    ]  # fmt: skip
