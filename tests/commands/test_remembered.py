"""One file of one's own through every command: split once, and said once."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import small_mlm

from minitinybert.commands.remembered import FILE, recall
from minitinybert.data.glue import custom_task, read_split
from minitinybert.data.parts import parts_of
from minitinybert.errors import InputError

from .test_cli import WORDS, run
from .test_cli import model as model

COLUMNS = ("--text-columns", "text", "--label-column", "kind")
QUICK = ("--epochs", 14, "--lr", 3e-3, "--max-length", 24)


def reviews(n=200, seed=0):
    """(text, label): whether a good word is there; texts with quotes, commas and line ends."""
    rng, rows = np.random.default_rng(seed), {}
    while (i := len(rows)) < n:
        words = list(rng.choice(WORDS[4:8] + WORDS[10:], rng.integers(4, 9)))
        kind = "likes it" if rng.random() < 0.4 else 'says "no"'
        words.insert(int(rng.integers(len(words) + 1)), "good" if kind == "likes it" else "bad")
        rows[" ".join(words) + ',\n "film"' * (i % 9 == 0)] = kind
    return list(rows.items())


def write(path, rows, columns=("text", "kind"), **format):
    """With a column that nobody asks for."""
    values = [{"id": str(i), **dict(zip(columns, row, strict=True))} for i, row in enumerate(rows)]
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(values), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in values), encoding="utf-8")
    elif path.suffix == ".tsv":
        lines = [["id", *columns], *map(dict.values, values)]
        path.write_text("".join("\t".join(cell.replace("\n", " ") for cell in line) + "\n" for line in lines), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file, **format).writerows([["id", *columns], *map(dict.values, values)])
    return path


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def file(root):
    """As a spreadsheet saves it: a byte order mark, CRLF, quotes."""
    return write(root / "reviews.csv", reviews(), lineterminator="\r\n")


@pytest.fixture(scope="module")
def teacher(root, file, model):
    from minitinybert.commands.cli import main

    arguments = ["finetune", "--model", model, "--data", file, *COLUMNS, "--out", root / "teacher", "--seed", 7, *QUICK]
    assert main([str(a) for a in arguments]) == 0
    return root / "teacher"


def test_a_converted_model_remembers_what_its_source_does(capsys, teacher, model, tmp_path):
    out = tmp_path / "converted"
    assert run(capsys, "convert", teacher, out)[0] == 0
    assert recall(out) == recall(teacher) is not None
    assert run(capsys, "convert", model, out, "--overwrite")[0] == 0
    assert recall(out) is None


def test_the_columns_and_the_parts_are_remembered(capsys, file, teacher):
    known = recall(teacher)
    assert (known.task, known.text_columns, known.label_column, known.parts) == ("custom", ("text",), "kind", parts_of(file))
    status, out, err = run(capsys, "evaluate", "--model", teacher, "--data", file, "--json")
    assert status == 0 and json.loads(out)["results"]["dev"]["accuracy"] > 0.8, err
    for split, n in (("dev", 20), ("test", 20), ("all", 200)):
        status, out, err = run(capsys, "evaluate", "--model", teacher, "--data", file, "--split", split, "--json")
        right = json.loads(out)["results"][split]["accuracy"] * n
        assert status == 0 and right == pytest.approx(round(right)), err  # of so many rows


def test_teacher_and_student_have_the_same_parts_whatever_the_seed(capsys, file, teacher, tmp_path):
    quick = ("--student", "1L-8D-2H-16F", "--intermediate-epochs", 1, "--epochs", 1, "--max-length", 24)
    for seed in (0, 5):
        out = tmp_path / f"student {seed}"
        status, _, err = run(capsys, "distill", "task", "--teacher", teacher, "--data", file, "--out", out, "--seed", seed, *quick)
        assert status == 0 and "160 train, 20 dev, 20 test rows" in err, err
        assert recall(out) == recall(teacher)
    other = ("--out", tmp_path / "no", "--split-seed", 1)
    status, _, err = run(capsys, "distill", "task", "--teacher", teacher, "--data", file, *other, *quick)
    assert status == 2 and "trained on the parts of seed 0" in err and err.count("\n") == 1


def test_the_parts_are_those_of_the_training(capsys, file, teacher, tmp_path):
    """What augment writes of the three parts is what the teacher's training and judging read."""
    from minitinybert.commands.remembered import in_parts

    task = in_parts(custom_task(file, ["text"], "kind"), recall(teacher).parts)
    parts = {name: read_split(task, file, name) for name in ("train", "dev", "test")}
    assert sorted(row for part in parts.values() for row in part.texts) == sorted(text for text, _ in reviews())
    line = json.loads((teacher / "metrics.jsonl").read_text().splitlines()[-1])
    assert [len(part) for part in parts.values()] == [160, 20, 20] and line["step"] == 14 * 5  # batches of 32
    status, out, _ = run(capsys, "predict", "--model", teacher, "--file", file, "--json")
    labels = {answer["text"]: answer["label"] for answer in json.loads(out)}
    dev = parts["dev"]
    right = np.mean([labels[text] == task.labels[y] for text, y in zip(dev.texts, dev.labels, strict=True)])
    status, out, _ = run(capsys, "evaluate", "--model", teacher, "--data", file, "--json")
    assert status == 0 and json.loads(out)["results"]["dev"]["accuracy"] == pytest.approx(right)


def test_a_file_that_has_changed_is_told(capsys, file, teacher, tmp_path):
    changed = write(tmp_path / "reviews.csv", reviews()[:-1])
    distil = ("distill", "task", "--teacher", teacher, "--student", "1L-8D-2H-16F", "--out", tmp_path / "s")
    for command in (("evaluate", "--model", teacher), distil):
        status, _, err = run(capsys, *command, "--data", changed)
        assert status == 2 and "reviews.csv: has changed since" in err and err.count("\n") == 1
    assert run(capsys, "evaluate", "--model", teacher, "--data", changed, "--split", "all")[0] == 0
    same = shutil.copy(file, tmp_path / "of another name.csv")
    assert "\tdev\t" in run(capsys, "evaluate", "--model", teacher, "--data", same)[1]
    other = write(tmp_path / "new.csv", reviews(30, seed=1))
    status, out, err = run(capsys, "evaluate", "--model", teacher, "--data", other)
    assert status == 0 and "\tall\t" in out and "another file than reviews.csv" in err


def test_augmented_parts_are_the_file_s(capsys, file, teacher, tmp_path, monkeypatch):
    mlm, vectors = small_mlm.model(tmp_path / "mlm"), tmp_path / "glove.txt"
    small_mlm.write_glove(vectors)
    augment = ("augment", "--mlm", mlm, "--vectors", vectors, "--data", file, *COLUMNS, "--copies", 1, "--processes", 1)
    status, _, err = run(capsys, *augment, "--out", tmp_path / "augmented")
    assert status == 0, err
    ours = custom_task(tmp_path / "augmented", ["text"], "kind")
    assert [len(read_split(ours, tmp_path / "augmented", part)) for part in ("train", "dev", "test")] == [320, 20, 20]
    quick = ("--student", "1L-8D-2H-16F", "--intermediate-epochs", 1, "--epochs", 1, "--max-length", 24)
    distil = ("distill", "task", "--teacher", teacher, *quick, "--data")
    assert run(capsys, *distil, tmp_path / "augmented", "--out", tmp_path / "student")[0] == 0
    assert recall(tmp_path / "student") == recall(teacher)
    assert run(capsys, *augment, "--out", tmp_path / "others", "--split-seed", 3)[0] == 0
    status, _, err = run(capsys, *distil, tmp_path / "others", "--out", tmp_path / "no")
    assert status == 2 and "augmented from other parts" in err


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_predict_knows_the_columns_and_writes_probabilities(capsys, teacher, tmp_path, ending):
    """Rows in their order, blank ones too, and a text with `|||` in it is one text."""
    rows = [(text, "") for text in ("good film", "", "bad ||| plot", "good\n\"plot\",")]
    source = write(tmp_path / f"new{ending}", rows)
    status, out, err = run(capsys, "predict", "--model", teacher, "--file", source, "--json")
    answers = json.loads(out)
    kept = [text.replace("\n", " ") if ending == ".tsv" else text for text, _ in rows]
    assert status == 0 and [answer["text"] for answer in answers] == kept, err
    assert [answers[0]["label"], answers[2]["label"]] == ["likes it", 'says "no"']
    for option in ("--file", "--data"):
        for out in (tmp_path / "answers.csv", tmp_path / "answers.tsv", tmp_path / "answers.jsonl"):
            status, _, err = run(capsys, "predict", "--model", teacher, option, source, "--out", out)
            assert status == 0, err
            if out.suffix == ".csv":
                found = table(out)
            elif out.suffix == ".jsonl":
                found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
            else:
                head, *lines = [line.split("\t") for line in out.read_text(encoding="utf-8").splitlines()]
                found = [dict(zip(head, line, strict=True)) for line in lines]
            assert [list(row) for row in found] == [["label", "likes it", 'says "no"']] * 4
            assert [row["label"] for row in found] == [answer["label"] for answer in answers]
            for row, answer in zip(found, answers, strict=True):
                assert float(row["likes it"]) == answer["probabilities"]["likes it"]


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.csv", 'id,text,kind\n1,good,x\n2,"bad\nplot",y,z\n', "a.csv, line 4: 4 columns, where 3 belong"),
        ("a.csv", 'id,text,kind\n1,good,x\n2,bad\n', "a.csv, line 3: 2 columns, where 3 belong"),
        ("a.csv", 'id,text,kind\n1,"good,x\n', "not CSV"),
        ("a.csv", "id,body,kind\n1,good,x\n2,bad,y\n", "no column 'text'; the header has id, body, kind"),
        ("a.csv", "id,text,kind\n1,good,x\n2,bad,y\n", "a.csv: 2 different rows are too few for train, dev and test; 8 are needed"),
        ("a.txt", "good\n", "a.txt: not a kind of file that is read: .tsv, .csv, .jsonl, .parquet"),
        ("a.jsonl", '{"text": "good", "kind": "x"}\n{"kind": "y"}\n', "a.jsonl, line 2: the text is None; a string is needed"),
        ("a.csv", "id,text,kind\n1,good,x\n2,bad,\n", "a.csv, line 3: no label in column 'kind'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_one_line(capsys, model, tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    status, out, err = run(capsys, "finetune", "--model", model, "--data", tmp_path / name, *COLUMNS, "--out", tmp_path / "out")
    said = [line for line in err.splitlines() if line.startswith("minitinybert: ")]
    assert status == 2 and out == "" and len(said) == 1 and words in said[0] and not (tmp_path / "out").exists()


def test_pairs_numbers_and_rows_without_a_label(capsys, model, tmp_path):
    rows = [(text, text[::-1], "" if i % 10 == 3 else f"{i % 7}.5") for i, (text, _) in enumerate(reviews(120))]
    source = write(tmp_path / "pairs.jsonl", rows, ("a", "b", "score"))
    columns = ("--text-columns", "a,b", "--label-column", "score", "--drop-unlabelled")
    status, _, err = run(capsys, "finetune", "--model", model, "--data", source, *columns, "--out", tmp_path / "m", "--epochs", 1)
    assert status == 0 and "12 of 120 rows have no gold label" in err and "which makes it a regression" in err, err
    status, out, err = run(capsys, "evaluate", "--model", tmp_path / "m", "--data", source, "--json")
    assert status == 0 and set(json.loads(out)["results"]["dev"]) == {"pearson", "spearman"}, err
    status, _, err = run(capsys, "predict", "--model", tmp_path / "m", "--file", source, "--out", tmp_path / "scores.csv")
    assert status == 0 and [list(row) for row in table(tmp_path / "scores.csv")] == [["score"]] * 120, err


def test_glue_s_tasks_are_remembered_by_name_and_their_labels_named(capsys, model, tmp_path):
    task = tmp_path / "SST-2"
    task.mkdir()
    lines = ["sentence\tlabel", *(text.replace("\n", " ") + f"\t{int(kind == 'likes it')}" for text, kind in reviews(60))]
    for split in ("train", "dev"):
        (task / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    (task / "test.tsv").write_text("index\tsentence\n0\tgood film\n")
    out = tmp_path / "m"
    assert run(capsys, "finetune", "--model", model, "--task", "sst-2", "--data", task, "--out", out, "--epochs", 1)[0] == 0
    assert json.loads((out / "config.json").read_text())["id2label"] == {"0": "negative", "1": "positive"}
    status, said, err = run(capsys, "evaluate", "--model", out, "--data", task)
    assert status == 0 and "\tdev\taccuracy" in said, err
    status, said, _ = run(capsys, "predict", "--model", out, "--data", task, "--out", tmp_path / "answers")
    assert status == 0 and Path(said.strip()).read_text().splitlines()[1] in ("0\t0", "0\t1")  # as the leaderboard wants it
    status, said, _ = run(capsys, "predict", "--model", out, "--data", task, "--out", tmp_path / "answers.csv")
    assert list(table(tmp_path / "answers.csv")[0]) == ["label", "negative", "positive"]
    status, said, _ = run(capsys, "predict", "--model", out, "--file", task / "test.tsv", "--json")
    assert [answer["text"] for answer in json.loads(said)] == ["good film"]
    (tmp_path / "lines.tsv").write_text("good film\nbad plot\n")  # no header: a text a line
    status, said, _ = run(capsys, "predict", "--model", out, "--file", tmp_path / "lines.tsv", "--json")
    assert [answer["text"] for answer in json.loads(said)] == ["good film", "bad plot"]
    status, _, err = run(capsys, "evaluate", "--model", out, "--data", task, "--split-seed", 1)
    assert status == 2 and "--split-seed 1: is of one file" in err and err.count("\n") == 1
    status, _, err = run(capsys, "evaluate", "--model", model, "--data", task)
    assert status == 2 and "--task NAME is needed" in err and err.count("\n") == 1


def test_what_is_not_written_over_and_what_a_table_cannot_hold(capsys, teacher, file, tmp_path):
    own = write(tmp_path / "own.csv", reviews(3))
    for arguments, words in [
        (("--file", own, "--out", own), "is what is read from too"),
        (("--data", own, "--out", own), "is what is read from too"),
        (("good film", "--out", tmp_path / "nowhere" / "a.csv"), "cannot be written"),
        (("good film", "--out", tmp_path / "out"), "go with --data"),
        (("--data", own), "--data and --out"),
    ]:
        status, out, err = run(capsys, "predict", "--model", teacher, *arguments)
        assert status == 2 and words in err and err.count("\n") == 1 and out == "", err
    assert table(own)[0]["kind"]


WHOLE = {"task": "custom", "text_columns": ["a"], "label_column": "b", "drop_unlabelled": False, "parts": None}


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        json.dumps({**WHOLE, "text_columns": "a"}),
        json.dumps({**WHOLE, "parts": {"seed": 0}}),
        json.dumps({**WHOLE, "parts": {"name": "a", "digest": "b", "seed": True}}),
    ],
)
def test_a_damaged_memory_is_one_line(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(InputError, match=FILE):
        recall(tmp_path)
    (tmp_path / FILE).write_text(json.dumps(WHOLE))
    assert recall(tmp_path).parts is None and recall(tmp_path / "nowhere") is None
