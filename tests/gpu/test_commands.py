"""The whole method by its commands with --device cuda: each ends where the CPU's does, and either device reads the other's files."""

import json

import pytest
from commands.test_cli_method import world  # noqa: F401  (a fixture)
from commands.test_demo import small  # noqa: F401  (a fixture)
from engine.test_ranks import mpiexec  # noqa: F401  (a fixture)

from minitinybert.audit import Case, assert_close, judges
from minitinybert.commands import demo
from minitinybert.commands.cli import main
from minitinybert.model.bert import Bert

pytestmark = pytest.mark.gpu
SHORT = ("--batch-size", 16, "--log-every", 2, "--lr", 3e-3)


def method(world, out):  # noqa: F811
    """Every command, a few steps each, with --out `out`/name: name -> its arguments but for --out and the device."""
    task = ("--task", "sst-2", "--data")
    text = ("--corpus", world / "corpus.txt", "--max-length", 32)
    student = ("--student", "1L-8D-2H-16F")
    return {
        "mlm": ("pretrain", "--model", "2L-16D-2H-32F", "--train-vocabulary", 80, *text, "--epochs", 0.6, *SHORT),
        "teacher": ("finetune", "--model", out / "mlm", *task, world, "--epochs", 20, *SHORT),
        "tuned": ("finetune", "--model", out / "mlm", *task, world, "--epochs", 0.6, "--optimizer", "bert-adam", *SHORT),
        "general": ("distill", "general", "--teacher", out / "mlm", *student, *text, "--epochs", 0.4, *SHORT),
        "data": ("augment", "--mlm", out / "mlm", "--vectors", world / "glove.txt", *task, world, "--copies", 1, "--provenance"),
        "student": (
            "distill", "task", "--teacher", out / "teacher", "--student", out / "general", *task, out / "data",
            "--intermediate-epochs", 1.5, "--epochs", 0.5, *SHORT,
        ),
        "released": (
            "distill", "task", "--teacher", out / "teacher", "--student", out / "general", *task, world, "--recipe", "huawei-2019",
            "--intermediate-epochs", 0.3, "--epochs", 0.3, *SHORT,
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def commands(cupy, world, tmp_path_factory):  # noqa: F811
    """All of them on the CPU, one after the other."""
    out = tmp_path_factory.mktemp("cpu")
    listed = method(world, out)
    for name, arguments in listed.items():
        assert main([str(a) for a in (*arguments, "--out", out / name, "--json")]) == 0, name
    return out, listed


@pytest.mark.parametrize("name", ["mlm", "tuned", "general", "student", "released"])
def test_training_ends_where_the_cpu_s_does(capsys, commands, tmp_path, name):
    out, listed = commands
    assert run(capsys, *listed[name], "--out", tmp_path / name, "--device", "cuda")
    same(out / name, tmp_path / name)


def test_several_ranks_end_there_too(commands, mpiexec, tmp_path):  # noqa: F811
    """They share the device where there is but one."""
    out, listed = commands
    done = mpiexec(2, [(*listed[name], "--out", tmp_path / name, "--device", "cuda") for name in ("general", "student")])
    assert done.returncode == 0, done.stderr
    for name in ("general", "student"):
        same(out / name, tmp_path / name)


def same(out, other, blind=()):
    """Losses and models of two runs. blind: more tensors whose gradient is zero by mathematics."""
    here, there = Bert.load(out).parameters, Bert.load(other).parameters
    assert here.flat.size == there.flat.size
    for tensor in here:
        # A gradient that is zero by mathematics: Adam divides what rounding leaves of it by its own size.
        if not tensor.endswith(("key.bias", *blind)):
            assert_close(tensor, there[tensor], here[tensor], 1e-2, 0.1)
    rows = [[json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()] for place in (out, other)]
    losses = [[row["losses"] for row in lines if "losses" in row] for lines in rows]
    assert losses[0] and losses[1] == [pytest.approx(each, rel=1e-3) for each in losses[0]]


def test_augmentation_writes_the_same_bytes(capsys, commands, tmp_path):
    out, listed = commands
    run(capsys, *listed["data"], "--out", tmp_path / "data", "--device", "cuda")
    for file in ("train.tsv", "provenance.jsonl"):
        assert (out / "data" / file).read_bytes() == (tmp_path / "data" / file).read_bytes()


def test_answers_are_the_cpu_s(capsys, commands, world):  # noqa: F811
    out, _ = commands
    evaluate = ("evaluate", "--model", out / "teacher", "--task", "sst-2", "--data", world)
    assert run(capsys, *evaluate, "--device", "cuda:0") == run(capsys, *evaluate)
    predict = ("predict", "--model", out / "student", "the film is good", "a dull war")
    for here, there in zip(run(capsys, *predict), run(capsys, *predict, "--device", "cuda"), strict=True):
        assert here["label"] == there["label"] and there["probabilities"] == pytest.approx(here["probabilities"], abs=1e-5)


def test_a_report_is_the_cpu_s(capsys, commands, tmp_path):
    out, _ = commands
    pages = []
    for device in ("cpu", "cuda"):
        page = tmp_path / f"{device}.html"
        run(capsys, "report", out / "teacher", out / "student", "--out", page, "--no-speed", "--sentences", 2, "--device", device)
        text = page.read_text(encoding="utf-8")
        pages.append(json.loads(text.split('id="figures">')[1].split("</script>")[0])["lessons"])
    for here, there in zip(*([student for lesson in lessons for student in lesson["students"]] for lessons in pages), strict=True):
        for grid in ("distances", "cka"):
            assert there[grid] == [pytest.approx(row, rel=1e-3) for row in here[grid]] and len(there[grid]) > 1


def test_the_audit_holds_on_the_device(cupy, capsys, monkeypatch):
    """Of operations and losses and of one model: all models by finite differences are minutes on a device that is simulated."""

    class First(Case):
        def sources(self, seed):
            return super().sources(seed)[:1]

    chosen = [First(**vars(case)) for case in judges.MODEL_CASES if case.name == "distill.prediction"]
    monkeypatch.setattr(judges, "MODEL_CASES", chosen)
    monkeypatch.setattr(judges, "OPTIMISER_CASES", ())
    report = run(capsys, "audit", "--device", "cuda")
    assert report["passed"] and [result["name"] for result in report["results"]] == [c.name for c in (*judges.CASES, *judges.MODEL_CASES)]


def test_a_study_and_the_demo_run_there(cupy, capsys, commands, world, small, tmp_path, monkeypatch):  # noqa: F811
    """From end to end; a batch is asked for nowhere but on the device."""
    out, _ = commands
    asked, forward = set(), Bert.forward_batch
    monkeypatch.setattr(
        Bert, "forward_batch", lambda model, batch, *a, **b: asked.add(type(batch.input_ids)) or forward(model, batch, *a, **b)
    )
    monkeypatch.setattr(demo, "_pictures", lambda *arguments: None)  # of models on the host
    study = run(
        capsys, "ablate", "--teacher", out / "teacher", "--student", "1L-8D-2H-16F", "--task", "sst-2", "--data", world, "--seeds", 0, 1,
        "--variants", "w/o GD", "--intermediate-epochs", 0.3, "--epochs", 0.3, "--general-teacher", out / "mlm", "--corpus",
        world / "corpus.txt", "--general-epochs", 0.1, "--out", tmp_path / "study", "--batch-size", 16, "--device", "cuda",
    )  # fmt: skip
    assert [row["variant"] for row in study["results"]] == ["full", "w/o GD"] and (tmp_path / "study" / "ablation.png").stat().st_size
    report = run(capsys, "demo", "--out", tmp_path / "demo", "--teacher", small, "--device", "cuda")
    assert report["models"]["student"]["accuracy"] > 0 and report["augmentation"]["bert"] > 0
    assert asked == {cupy.ndarray}


def test_a_device_that_is_not_there_is_one_clear_line(cupy, capsys):
    number = cupy.cuda.runtime.getDeviceCount()
    assert main(["predict", "--model", "x", "text", "--device", f"cuda:{number}"]) == 2
    assert f"there are only {number} devices" in capsys.readouterr().err


def run(capsys, *arguments):
    capsys.readouterr()
    status = main([str(a) for a in (*arguments, "--json")])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return json.loads(captured.out)
