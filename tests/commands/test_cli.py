"""The command line as a user meets it: exit statuses, one line for what was wrong, results as JSON."""

import io
import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from minitinybert.commands import corpus as corpus_command
from minitinybert.commands import task as task_command
from minitinybert.commands.cli import main
from minitinybert.commands.recipe_file import load_recipe
from minitinybert.data.significance import wilson
from minitinybert.distillation.recipes import RECIPES
from minitinybert.errors import InputError
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.training import answers, loop
from minitinybert.training.kept_traces import KeptTraces

WORDS = ["good", "bad", "fine", "awful", "film", "plot", "actor", "scene", "great", "poor", "the", "a", "is", "was", "very"]


def vocabulary():
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A small random BERT with a tokenizer of a few words."""
    directory = tmp_path_factory.mktemp("model")
    (directory / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    config = Config(
        vocab_size=len(vocabulary()),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=128,
    )
    fresh = Bert.new(config, 3)
    fresh.tokenizer_files = {"vocab.txt": directory / "vocab.txt"}
    fresh.save(directory / "saved")
    return str(directory / "saved")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """SST-2's layout; the label is whether a good word is there, so that it can be learned."""
    directory = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, n in (("train", 160), ("dev", 40)):
        lines = ["sentence\tlabel"]
        for _ in range(n):
            words = list(rng.choice(WORDS[4:8] + WORDS[10:], rng.integers(1, 7)))
            label = int(rng.integers(2))
            words.insert(int(rng.integers(len(words) + 1)), "good" if label else "bad")
            lines.append(" ".join(words) + f"\t{label}")
        (directory / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(directory)


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_fine_tune_distil_evaluate_predict(capsys, model, data, tmp_path):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    common = ("--task", "sst-2", "--data", data)
    status, out, err = run(capsys, "finetune", "--model", model, *common, "--out", teacher, "--epochs", 12, "--lr", 3e-3, "--json")
    assert status == 0, err
    assert json.loads(out)["results"]["dev"]["accuracy"] > 0.9
    assert len(re.findall(r"^step \d+/60: dev accuracy [01]\.\d{4}", err, re.MULTILINE)) == 12  # an epoch each, as it goes
    assert re.search(r"^step 5/60: dev accuracy 0\.\d{4} \(best so far\)$", err, re.MULTILINE)
    status, out, err = run(
        capsys, "distill", "task", "--teacher", teacher, "--student", "1L-8D-2H-16F", *common, "--out", student,
        "--intermediate-epochs", 8, "--intermediate-lr", 5e-3, "--epochs", 12, "--lr", 1e-2, "--log-every", 5, "--json",
    )  # fmt: skip
    assert status == 0 and "warning: 100 steps in all; a student learns little" in err, err
    distilled = json.loads(out)["results"]["dev"]["accuracy"]
    assert distilled > 0.8
    status, out, _ = run(capsys, "evaluate", "--model", student, *common, "--json")
    assert status == 0 and json.loads(out)["results"]["dev"]["accuracy"] == distilled
    status, out, _ = run(capsys, "evaluate", "--model", student, *common)
    name, split, values = out.rstrip("\n").split("\t")
    value, low, high = map(float, re.fullmatch(r"accuracy (\S+) \[(\S+), (\S+)\]", values).groups())
    assert (name, split, value) == (str(student), "dev", round(distilled, 4)) and (low, high) == pytest.approx(
        wilson(round(40 * distilled), 40), abs=1e-4
    )
    status, out, _ = run(capsys, "predict", "--model", student, "good film", "bad plot", "--json")
    assert status == 0 and [a["label"] for a in json.loads(out)] == ["positive", "negative"]
    status, out, _ = run(capsys, "predict", "--model", student, "good film")
    assert status == 0 and out.split("\t")[0] == "positive" and out.endswith("good film\n")
    losses = [json.loads(line) for line in (student / "intermediate" / "metrics.jsonl").read_text().splitlines()]
    assert set(losses[0]["losses"]) == {"embedding", "hidden", "attention"}
    assert losses[-1]["losses"]["hidden"] < 0.8 * losses[0]["losses"]["hidden"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("finetune", "--model", "{nowhere}", "--task", "sst-2", "--data", "{data}", "--out", "{out}"), "nowhere"),
        (("finetune", "--model", "{model}", "--task", "sst-3", "--data", "{data}", "--out", "{out}"), "sst-3"),
        (("finetune", "--model", "{model}", "--task", "sst-2", "--data", "{nowhere}", "--out", "{out}"), "nowhere"),
        (("finetune", "--model", "{model}", "--task", "sst-2", "--data", "{data}", "--out", "{out}", "--lr", "0"), "--lr 0"),
        (
            ("finetune", "--model", "{model}", "--task", "sst-2", "--data", "{data}", "--out", "{out}", "--max-length", "999"),
            "128 positions",
        ),
        (("finetune", "--model", "{model}", "--task", "sst-2", "--data", "{data}", "--out", "{out}", "--device", "tpu"), "--device tpu"),
        (("evaluate", "--model", "{model}", "--task", "sst-2", "--data", "{data}"), "no classifier"),
        (("predict", "--model", "{model}", "text"), "no classifier"),
        (
            ("distill", "task", "--teacher", "{model}", "--student", "{model}", "--task", "sst-2", "--data", "{data}", "--out", "{out}"),
            "no classifier",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, model, data, tmp_path, arguments, words):
    places = {"model": model, "data": data, "out": tmp_path / "out", "nowhere": tmp_path / "nowhere"}
    status, out, err = run(capsys, *(a.format(**places) for a in arguments))
    assert status == 2 and out == ""
    assert err.startswith("minitinybert: ") and err.count("\n") == 1 and words in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("finetune", "--batch-size", "abc"), "abc is not a whole number above 0"),
        (("distill", "task", "--cache-gb", "nan"), "nan is not a number of 0 or more"),
        (("evaluate",), "the following arguments are required"),
        (("no-such-command",), "no-such-command"),
    ],
)
def test_usage_errors_are_one_line_and_status_2(capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1 and words in err and "--help" in err


def test_an_out_that_is_a_file_or_is_read_from_is_one_line(capsys, model, data, tmp_path):
    (tmp_path / "file").touch()
    common = ("finetune", "--model", model, "--task", "sst-2", "--data", data, "--out")
    for out in (tmp_path / "file", model, data):
        status, _, err = run(capsys, *common, out)
        assert status == 2 and err.startswith("minitinybert: ") and err.count("\n") == 1 and str(out) in err
    status, _, err = run(capsys, "convert", model, tmp_path / "copy")
    assert status == 0, err
    status, _, err = run(capsys, "convert", model, tmp_path / "copy")
    assert status == 2 and "--overwrite" in err
    assert run(capsys, "convert", model, tmp_path / "copy", "--overwrite")[0] == 0


def test_a_run_is_not_written_over(capsys, model, data, tmp_path):
    arguments = ("finetune", "--model", model, "--task", "sst-2", "--data", data, "--out", tmp_path / "out", "--epochs", 1)
    assert run(capsys, *arguments)[0] == 0
    status, _, err = run(capsys, *arguments)
    assert status == 2 and "--resume" in err
    assert run(capsys, *arguments, "--resume")[0] == 0


def test_help_of_every_command():
    commands = [
        "demo",
        "convert",
        "finetune",
        "pretrain",
        "augment",
        "distill general",
        "distill task",
        "ablate",
        "evaluate",
        "predict",
        "audit",
    ]
    for command in map(str.split, commands):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--help"])
        assert stop.value.code == 0


def test_the_command_is_a_module_too():
    done = subprocess.run([sys.executable, "-m", "minitinybert", "no-such-command"], capture_output=True, text=True)
    assert done.returncode == 2 and "no-such-command" in done.stderr


@pytest.fixture(scope="module")
def teacher(model, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher") / "fine-tuned"
    arguments = ["finetune", "--model", model, "--task", "sst-2", "--data", data, "--out", str(out), "--epochs", "12", "--lr", "3e-3"]
    assert main(arguments) == 0
    return out


def test_a_teacher_with_its_labels_the_wrong_way_round_is_found_out_before_training(capsys, teacher, data, tmp_path):
    wrong = Bert.load(teacher)
    for name in ("classifier.weight", "classifier.bias"):
        wrong.parameters[name][...] = wrong.parameters[name][::-1].copy()
    wrong.save(tmp_path / "wrong")
    arguments = ("distill", "task", "--student", "1L-8D-2H-16F", "--task", "sst-2", "--data", data, "--out", tmp_path / "out")
    status, _, err = run(capsys, *arguments, "--teacher", tmp_path / "wrong")
    assert status == 2 and "constant answer" in err.splitlines()[-1] and not (tmp_path / "out").exists()


def test_labels_of_another_order_are_put_right(capsys, teacher, data, tmp_path):
    """Outputs and id2label both the other way round: the same answers."""
    turned = Bert.load(teacher)
    for name in ("classifier.weight", "classifier.bias"):
        turned.parameters[name][...] = turned.parameters[name][::-1].copy()
    turned = Bert(replace(turned.config, id2label={0: "1", 1: "0"}), turned.parameters, turned.tokenizer_files)
    turned.save(tmp_path / "turned")
    results = []
    for path in (teacher, tmp_path / "turned"):
        status, out, err = run(capsys, "evaluate", "--model", path, "--task", "sst-2", "--data", data, "--json")
        assert status == 0, err
        results.append(json.loads(out)["results"]["dev"]["accuracy"])
    assert results[0] == results[1] > 0.9


def test_test_files_are_answered_for_the_leaderboard(capsys, teacher, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.tsv").write_text("index\tsentence\n0\tgood film\n1\tbad plot\n2\tthe good actor\n")
    out = tmp_path / "out"
    arguments = ("predict", "--model", teacher, "--task", "sst-2", "--data", tmp_path / "data", "--out", out)
    status, shown, err = run(capsys, *arguments)
    assert status == 0 and shown.strip() == str(out / "SST-2.tsv"), err
    assert (out / "SST-2.tsv").read_text() == "index\tprediction\n0\t1\n1\t0\n2\t1\n"
    assert run(capsys, "predict", "--model", teacher)[0] == 2


def test_own_data_are_answered_by_the_models_labels(capsys, teacher, tmp_path):
    """No training file is needed to evaluate, and no labels to predict; texts may come from a file."""
    columns = ("--task", "custom", "--data", tmp_path, "--text-columns", "text")
    (tmp_path / "dev.csv").write_text("text,kind\ngood film,1\nbad plot,negative\nbad film,1\n")  # a number means the model's output
    (tmp_path / "test.tsv").write_text("text\nbad plot\ngood film\n")
    (tmp_path / "texts").write_text("bad plot\n\nthe good actor\n")
    status, out, err = run(capsys, "evaluate", "--model", teacher, *columns, "--label-column", "kind", "--json")
    assert status == 0 and json.loads(out)["results"]["dev"]["accuracy"] == pytest.approx(2 / 3), err
    status, out, err = run(capsys, "predict", "--model", teacher, *columns, "--out", tmp_path / "out")
    assert status == 0 and (tmp_path / "out" / "custom.tsv").read_text() == "index\tprediction\n0\tnegative\n1\tpositive\n", err
    status, out, err = run(capsys, "predict", "--model", teacher, "--file", tmp_path / "texts", "--json")
    assert status == 0 and [a["label"] for a in json.loads(out)][::2] == ["negative", "positive"], err
    status, _, err = run(capsys, "evaluate", "--model", teacher, *columns, "--label-column", "kind", "--labels", "1,2,3")
    assert status == 2 and err.count("\n") == 1


def test_answer_n_is_line_n_s(capsys, teacher, tmp_path, monkeypatch):
    """Blank lines are answered as empty texts, and a line feed alone ends a line, in the file and in what is printed."""
    odd = "good\rfilm\u2028\x85\x0cbad"
    texts = ["good film", "", "bad plot", "  \t", odd, "", "good film"]
    content = ("\ufeff" + "\r\n".join(texts[:3]) + "\n" + "\n".join(texts[3:]) + "\n").encode()
    (tmp_path / "texts").write_bytes(content)
    arguments = ("predict", "--model", teacher, "--file")
    status, out, err = run(capsys, *arguments, tmp_path / "texts", "--json")
    answers = json.loads(out)
    assert status == 0 and [answer["text"] for answer in answers] == texts, err
    assert "3 of 7 lines are blank, line 2 the first; each is answered as an empty text" in err
    assert answers[1]["probabilities"] == answers[3]["probabilities"] == answers[5]["probabilities"]
    assert answers[0]["probabilities"] == answers[6]["probabilities"] != answers[1]["probabilities"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    status, out, err = run(capsys, *arguments, "-")
    lines = out.splitlines()
    assert status == 0 and [line.split("\t")[0] for line in lines] == [answer["label"] for answer in answers], err
    assert lines[4].split("\t", 2)[2] == "good film   bad"
    (tmp_path / "texts").write_bytes(b"good ||| film\n\nbad ||| plot\n")  # a blank line is a pair's too
    status, out, err = run(capsys, *arguments, tmp_path / "texts", "--json")
    assert status == 0 and len(json.loads(out)) == 3, err
    for content, words in ((b"\n \n", "holds no text"), (b"", "holds no text"), (b"good\nb\xff", "line 2: not UTF-8 (byte 2)")):
        (tmp_path / "texts").write_bytes(content)
        status, out, err = run(capsys, *arguments, tmp_path / "texts")
        assert status == 2 and words in err and err.count("\n") == 1 and not out


def test_rows_without_a_gold_label_are_left_out_where_asked(capsys, model, tmp_path):
    rows = "".join(f"{text}\t{label}\n" for text, label in (("good film", "yes"), ("bad plot", "no"), ("the actor", "-")) * 4)
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.tsv").write_text("text\tkind\n" + rows)
    custom = ("--task", "custom", "--data", tmp_path, "--text-columns", "text", "--label-column", "kind")
    finetune = ("finetune", "--model", model, *custom, "--epochs", 1, "--out")
    status, out, err = run(capsys, *finetune, tmp_path / "out")
    assert status == 2 and "train.tsv, line 4: no label in column 'kind'; --drop-unlabelled" in err and not (tmp_path / "out").exists()
    status, out, err = run(capsys, *finetune, tmp_path / "out", "--drop-unlabelled")
    assert status == 0 and "train.tsv: 2 labels: 'no' 4, 'yes' 4" in err and "dev.tsv: 4 of 12 rows have no gold label" in err
    status, out, err = run(capsys, "evaluate", "--model", tmp_path / "out", *custom)
    assert status == 2 and "dev.tsv, line 4: label '-'; task custom has no, yes; --drop-unlabelled" in err
    assert run(capsys, "evaluate", "--model", tmp_path / "out", *custom, "--drop-unlabelled")[0] == 0
    status, out, err = run(capsys, "predict", "--model", tmp_path / "out", *custom, "--out", tmp_path / "answers")
    assert status == 0 and len((tmp_path / "answers" / "custom.tsv").read_text().splitlines()) == 13, err  # every row of a test file


def test_switches_are_set_on_the_command_line():
    """As in a file, without its quotes."""
    given = ["temperature=2", "projection = layer", "layers=2,4", "hidden_weights=1,0.5", "attention_weights=0", "teacher_dropout=true"]
    expected = {"temperature": 2.0, "projection": "layer", "layers": "2,4", "hidden_weights": "1,0.5", "attention_weights": "0"}
    assert load_recipe("paper", given) == replace(RECIPES["paper"], **expected, teacher_dropout=True)
    assert load_recipe("paper", given).weights == {"embedding": 1.0, "hidden": (1.0, 0.5), "attention": 0.0}
    for bad, words in (
        ("temprature=2", "no switch 'temprature'"),
        ("padding", "NAME=VALUE"),
        ("padding=some", "choose one of exclude, count"),
    ):
        with pytest.raises(InputError, match=f"--set.*{words}"):
            load_recipe("paper", [bad])


def test_the_second_step_goes_on_from_the_first_ones_model(capsys, teacher, data, tmp_path):
    out = tmp_path / "out"
    common = ("distill", "task", "--teacher", teacher, "--student", "1L-8D-2H-16F", "--task", "sst-2", "--data", data, "--out")
    steps = ("--intermediate-epochs", 1, "--intermediate-lr", 1e-2, "--epochs", 1, "--json")
    status, shown, err = run(capsys, *common, out, *steps, "--stage", "intermediate")
    assert status == 0 and json.loads(shown) == {"model": str(out / "intermediate"), "results": {}}, err
    assert run(capsys, *common, out, *steps, "--stage", "prediction")[0] == 0
    assert run(capsys, *common, tmp_path / "at-once", *steps)[0] == 0
    assert run(capsys, *common, tmp_path / "alone", *steps, "--stage", "prediction")[0] == 0
    flat = [Bert.load(path).parameters.flat.tobytes() for path in (out, tmp_path / "at-once", tmp_path / "alone")]
    assert flat[0] == flat[1] != flat[2]


def test_a_run_that_is_finished_asks_no_teacher(capsys, teacher, data, tmp_path, monkeypatch):
    arguments = ("distill", "task", "--teacher", teacher, "--student", "1L-8D-2H-16F", "--task", "sst-2", "--data", data)
    arguments += ("--out", tmp_path / "out", "--intermediate-epochs", 2, "--epochs", 1, "--resume")
    assert run(capsys, *arguments)[0] == 0
    monkeypatch.setattr(answers, "KeptTraces", None)
    monkeypatch.setattr(answers, "KeptLogits", None)
    assert run(capsys, *arguments)[0] == 0


@pytest.fixture
def fills(monkeypatch):
    """A dtype for every file of a teacher's answers that is filled."""
    filled, fill = [], KeptTraces._fill
    monkeypatch.setattr(KeptTraces, "_fill", lambda self, values: filled.append(values.dtype) or fill(self, values))
    return filled


def _distil(capsys, teacher, data, out, *more, epochs=2, status=0):
    """The intermediate step; what it said."""
    arguments = ("distill", "task", "--teacher", teacher, "--student", "1L-8D-2H-16F", "--task", "sst-2", "--data", data, "--out", out)
    found, _, err = run(capsys, *arguments, "--stage", "intermediate", "--intermediate-epochs", epochs, *more)
    assert found == status, err
    return err


def _weights(out):
    return (out / "intermediate" / "model.safetensors").read_bytes()


def test_by_default_the_teacher_is_asked_once(capsys, teacher, data, tmp_path, fills, monkeypatch):
    """And a line says what that takes and saves. A run of one epoch asks it once anyway."""
    monkeypatch.delenv("MINITINYBERT_QUIET", raising=False)
    said = [line for line in _distil(capsys, teacher, data, tmp_path / "out", epochs=3).splitlines() if "asked once" in line]
    assert fills == [np.float16]
    place = tmp_path / "out" / "intermediate"
    assert said == [f"the teacher is asked once: its answers take 0.1 MB in {place}, and it is not run in 2 of 3 epochs"]
    assert {path.name for path in place.iterdir()} >= {"metrics.jsonl"} and not list(tmp_path.rglob("*.float*"))
    for i, more in enumerate((("--cache-gb", 0), ("--cache-gb", 1e-9), ("--set", "teacher_dropout=true"), ("--set", "padding=count"))):
        _distil(capsys, teacher, data, tmp_path / str(i), *more)
    _distil(capsys, teacher, data, tmp_path / "short", epochs=1)
    assert len(fills) == 1


def test_a_run_is_the_same_whatever_room_there_is(capsys, teacher, data, tmp_path, fills):
    """Whoever answers rounds alike; with 0 nobody does, which is another run."""
    _distil(capsys, teacher, data, tmp_path / "kept")
    _distil(capsys, teacher, data, tmp_path / "bounded", "--cache-gb", 1e-9)
    _distil(capsys, teacher, data, tmp_path / "off", "--cache-gb", 0)
    kept, bounded, off = (Bert.load(tmp_path / name / "intermediate").parameters.flat for name in ("kept", "bounded", "off"))
    assert np.linalg.norm(kept - bounded) < 0.1 * np.linalg.norm(kept - off) < 1e-4 * np.linalg.norm(kept) and len(fills) == 1
    said = _distil(capsys, teacher, data, tmp_path / "kept", "--cache-gb", 0, "--resume", status=2)
    assert "--resume needs the same teacher's answers: float16 when the run began, unrounded now" in said


def test_a_run_that_goes_on_with_kept_answers_ends_with_the_same_bits(capsys, teacher, data, tmp_path, fills, monkeypatch):
    """Filled again, or found in a shared directory."""
    _distil(capsys, teacher, data, tmp_path / "whole", epochs=3)
    step = loop._Run.step
    for out, shared in ((tmp_path / "again", ()), (tmp_path / "found", ("--teacher-cache", tmp_path / "answers"))):
        monkeypatch.setattr(loop._Run, "step", lambda self, number: step(self, number if number < 7 else "the process dies"))
        _distil(capsys, teacher, data, out, *shared, epochs=3, status=70)
        monkeypatch.setattr(loop._Run, "step", step)
        _distil(capsys, teacher, data, out, *shared, "--resume", epochs=3)
        assert _weights(out) == _weights(tmp_path / "whole")
    assert len(fills) == 4


def test_seeds_share_a_teacher_s_answers(capsys, teacher, data, tmp_path, fills):
    """Each comes to what it would come to alone; another length is other data."""
    shared = ("--teacher-cache", tmp_path / "answers")
    for seed in (0, 1):
        _distil(capsys, teacher, data, tmp_path / f"alone-{seed}", "--seed", seed)
    assert len(fills) == 2
    for seed in (0, 1):
        _distil(capsys, teacher, data, tmp_path / f"shared-{seed}", "--seed", seed, *shared)
        assert _weights(tmp_path / f"shared-{seed}") == _weights(tmp_path / f"alone-{seed}")
    assert len(fills) == 3 and len(list((tmp_path / "answers").rglob("*.float16"))) == 1
    _distil(capsys, teacher, data, tmp_path / "shorter", "--max-length", 5, *shared)
    assert len(fills) == 4 and len(list((tmp_path / "answers").rglob("*.float16"))) == 2
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".lock", ".partial"))]


def test_a_place_for_answers_that_cannot_be_written_is_told(capsys, teacher, data, tmp_path):
    (tmp_path / "file").touch()
    said = _distil(capsys, teacher, data, tmp_path / "out", "--teacher-cache", tmp_path / "file", status=2)
    assert f"minitinybert: {tmp_path / 'file'}" in said.splitlines()[-1] and "cannot be written" in said.splitlines()[-1]


def test_what_is_missing_is_said_before_hours_are_spent(capsys, teacher, data, tmp_path):
    (tmp_path / "data").mkdir()
    arguments = ("distill", "task", "--teacher", teacher, "--student", "1L-8D-2H-16F", "--task", "sst-2", "--data", data)
    status, _, err = run(capsys, *arguments, "--out", tmp_path / "out", "--prediction-data", tmp_path / "data")
    assert status == 2 and "no train" in err and not (tmp_path / "out").exists()


def test_the_recipe_says_what_the_command_line_leaves_out(capsys, teacher, data, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(task_command, "_train", lambda *given: trained.append(given) or given[0].save(given[4]))
    arguments = ("distill", "task", "--teacher", teacher, "--student", "1L-8D-2H-16F", "--task", "sst-2", "--data", data)
    arguments += ("--out", tmp_path / "out", "--recipe", "huawei-2019", "--intermediate-epochs", 4, "--lr", 1e-3, "--batch-size", 8)
    arguments += ("--max-length", 12)
    status, _, err = run(capsys, *arguments)
    assert status == 0, err
    first, second = (given[3] for given in trained)
    assert trained[0][2].max_length == 12 and (first.epochs, first.batch_size, first.lr, first.schedule) == (4, 8, 5e-5, "constant")
    assert (second.lr, second.epochs, second.batch_size, second.schedule) == (1e-3, 3, 8, "linear")
    assert first.optimizer == second.optimizer == "bert-adam"


@pytest.mark.parametrize(
    "recipe, given, learns",
    [
        ("default", (), (3, 32, 1e-4, 0.1, "adamw")),
        ("paper", (), (3, 256, 1e-4, 10_000, "bert")),
        ("huawei-2019", (), (3, 256, 5e-5, 0.1, "bert-adam")),
        ("paper", ("--epochs", 2, "--batch-size", 8, "--lr", 1e-3, "--warmup", 0.2), (2, 8, 1e-3, 0.2, "bert")),
    ],
)
def test_general_distillation_learns_as_the_recipe_says(capsys, model, tmp_path, monkeypatch, recipe, given, learns):
    seen = []

    def trained(learner, examples, options, out, **more):
        seen.append((options.epochs, options.batch_size, options.lr, options.warmup, options.optimizer))
        assert examples.max_length == 128
        (out / "metrics.jsonl").write_text("")

    monkeypatch.setattr(corpus_command, "train", trained)
    (tmp_path / "text").write_text("the film is good\nthe plot was bad\n\n" * 40)
    arguments = ("distill", "general", "--teacher", model, "--student", "1L-8D-2H-16F", "--corpus", tmp_path / "text")
    status, _, err = run(capsys, *arguments, "--out", tmp_path / "out", "--recipe", recipe, *given)
    assert status == 0 and seen == [learns], err


def test_the_released_recipe_from_teacher_to_answers(capsys, model, data, tmp_path):
    """Both heads have the relu, and all commands compute it; the student is judged every 50 steps and after the last of 3 × 40."""
    common = ("--task", "sst-2", "--data", data, "--recipe", "huawei-2019", "--batch-size", 4)
    status, _, err = run(capsys, "finetune", "--model", model, *common, "--out", tmp_path / "teacher", "--epochs", 8, "--lr", 3e-3)
    assert status == 0 and "BertForSequenceClassification does not compute" in err, err
    arguments = ("distill", "task", "--teacher", tmp_path / "teacher", "--student", "1L-8D-2H-16F", *common, "--out", tmp_path / "student")
    steps = ("--max-length", 12, "--intermediate-epochs", 1, "--intermediate-lr", 5e-3, "--lr", 5e-3)
    status, out, err = run(capsys, *arguments, *steps, "--json")
    assert status == 0 and "asked with a relu" not in err, err
    rows = [json.loads(line) for line in (tmp_path / "student" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "dev" in row] == [50, 100, 120]
    assert Bert.load(tmp_path / "student").config.classifier_relu and Bert.load(tmp_path / "teacher").config.classifier_relu
    best = max(row["dev"]["accuracy"] for row in rows if "dev" in row)
    assert json.loads(out)["results"]["dev"]["accuracy"] == best
    status, out, err = run(capsys, "evaluate", "--model", tmp_path / "student", "--task", "sst-2", "--data", data, "--json")
    assert status == 0 and json.loads(out)["results"]["dev"]["accuracy"] == best, err


@pytest.mark.parametrize(
    "content, words",
    [
        ('recipe = ["x"]', "recipe is ['x']"),
        ("temperature = inf", "temperature is inf"),
        ('layers = "²,1"', "layers is '²,1'"),
        ('recipe = "paperr"', "recipe is 'paperr'"),
        ("temprature = 2.0", "no switch 'temprature'; there are projection"),
        ("temperature = 0", "temperature is 0.0"),
        ('projection_bias = "yes"', "projection_bias is 'yes'; a bool"),
        ('projection = "both"', "choose one of split, shared, layer, none"),
        ('layers = "3;6"', "layers is '3;6'"),
        ("=", "not TOML"),
    ],
)
def test_bad_recipes_are_refused_by_name(content, words, tmp_path):
    (tmp_path / "mine.toml").write_text(content)
    with pytest.raises(InputError) as error:
        load_recipe(str(tmp_path / "mine.toml"))
    assert words in str(error.value) and "mine.toml" in str(error.value)


def test_a_recipe_file_changes_what_it_names_and_no_more(tmp_path):
    (tmp_path / "mine.toml").write_text('recipe = "huawei-2019"\ntemperature = 2\nlayers = [2, 4]\n')
    mine = load_recipe(str(tmp_path / "mine.toml"))
    assert mine == replace(RECIPES["huawei-2019"], temperature=2.0, layers="2,4") and mine.layer_map == [2, 4]
    with pytest.raises(InputError, match="--recipe mine: choose one of default, paper, huawei-2019"):
        load_recipe("mine")
