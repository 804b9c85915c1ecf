"""The command: what is on the page of real runs, what is left out and said, what is refused; and that it is inert and loads nothing."""

import base64
import hashlib
import html
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from minitinybert.commands.cli import main
from minitinybert.commands.remembered import in_parts
from minitinybert.commands.report import inside
from minitinybert.data.glue import custom_task, read_split
from minitinybert.data.parts import parts_of
from minitinybert.data.tokenizer import Tokenizer
from minitinybert.model.bert import Bert

from .conftest import HOSTILE, bert, sentences

ASKED = ("--text", HOSTILE, "--text", "good film ||| bad plot", "--sentences", "4", "--no-speed")


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def figures(page):
    """What the page's script is given."""
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)[1])


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    """The page of all four runs, and what the command says of it."""
    out = tmp_path_factory.mktemp("page") / "new" / "report.html"
    runs = [str(made.here / name) for name in ("teacher", "general", "student", "baseline")]
    assert main(["report", *runs, "--out", str(out), *ASKED]) == 0
    return out.read_text(encoding="utf-8")


def test_it_has_every_part(page):
    ids = re.findall(r'<section id="([\w-]+)"', page)
    assert ids == ["models", "training", "attention", "layers", "maps", "answers"]  # nothing is left out
    drawn = figures(page)
    assert [run["name"] for run in drawn["runs"]] == ["teacher", "general", "student", "baseline"]
    assert [[s["name"] for s in lesson["students"]] for lesson in drawn["lessons"]] == [
        ["general"], ["student, intermediate step", "student, prediction step"],
    ]  # fmt: skip
    assert [(own["of"], own["name"]) for own in drawn["maps"]] == [
        (of, name) for of in ("general", "student, intermediate step") for name in ("fit_dense_embedding", "fit_dense_hidden")
    ]
    (group,) = drawn["groups"]
    assert [model["name"] for model in group] == ["teacher", "student", "baseline"] and all(model["reliability"] for model in group)
    text = html.unescape(page)
    for words in ("Expected calibration error: teacher 0.", "McNemar", "Where student and teacher part", "of 30 examples of sst-2"):
        assert words in text, words
    assert drawn["colours"] == {"student": "student", "teacher": "teacher", "general": "orange", "baseline": "berry"}


def test_its_attention_is_the_models(page, made):
    """Unpacked, in 255ths: of a sentence that was given, and of one of the data's, in teacher and student."""
    lesson = figures(page)["lessons"][1]
    student = lesson["students"][1]
    assert [s["origin"] for s in lesson["sentences"]][:2] == ["--text", "--text"] and len(lesson["sentences"]) == 6
    assert lesson["sentences"][1]["tokens"] == ["[CLS]", "good", "film", "[SEP]", "bad", "plot", "[SEP]"]
    assert student["map"] == [2, 4] and (lesson["layers"], student["layers"]) == (4, 2)
    for directory, side in (("teacher", lesson), ("student", student)):
        model = Bert.load(made.here / directory)
        words = Tokenizer.load(model.tokenizer_files)
        (pair,) = words.encode(["good film"], ["bad plot"])
        given = np.frombuffer(base64.b64decode(side["attention"][1]), np.uint8)
        assert given.reshape(side["layers"], 2, 7, 7) / 255 == pytest.approx(inside.attention(model, pair), abs=0.5 / 255 + 1e-6)
        ids = [words.token_to_id(token) for token in lesson["sentences"][3]["tokens"]]
        trace, _ = model.forward(np.array([ids]))
        e = np.exp(trace.scores[1][0])
        own = np.frombuffer(base64.b64decode(side["attention"][3]), np.uint8).reshape(side["layers"], 2, len(ids), len(ids))
        assert own[1] / 255 == pytest.approx(e / e.sum(axis=-1, keepdims=True), abs=0.5 / 255 + 1e-6)


def test_its_distances_are_the_student_s_and_the_maps_the_intermediate_step_s(page, made):
    drawn = figures(page)
    student = drawn["lessons"][1]["students"][0]
    assert np.array(student["distances"], float).shape == np.array(student["cka"]).shape == (3, 5)
    saved = inside.read_maps(str(made.here / "student" / "intermediate"), read_recipe(), 2)
    values = np.linalg.svd(saved.tensors["fit_dense_hidden.weight"].astype(float), compute_uv=False)
    assert drawn["maps"][3]["values"] == pytest.approx(values, rel=1e-4)
    assert all(0 <= value <= 1.0001 for row in student["cka"] for value in row)


def read_recipe():
    from minitinybert.distillation.recipes import DEFAULT

    return DEFAULT


class Reader(HTMLParser):
    """The tags of a page, and whatever of it asks for something outside."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.outside, self.text = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name.startswith("on") or (name in ("src", "href", "srcset", "action") and value[:1] != "#"):
                self.outside.append((tag, name, value))

    def handle_data(self, data):
        self.text.append(data)


def test_it_loads_nothing_and_text_is_text(page):
    """What stands in the data is no markup: `</script><b>` of a dev sentence and of --text."""
    seen = Reader(page)
    assert seen.outside == [("link", "href", "data:,")] and seen.tags.count("script") == 2
    assert seen.tags.count("b") == page.count('<span class="score"><b>') == 3
    assert "<b> film" not in page and "</script><b>" not in page
    assert "http" not in re.sub(r"http-equiv|http://www\.w3\.org/2000/svg", "", page) and "@import" not in page and "url(" not in page
    script = page.split("<script>")[1].split("</script>")[0]
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in page
    assert "default-src 'none'" in page


def test_the_same_runs_give_the_same_page(page, made, tmp_path, capsys):
    runs = [made.here / name for name in ("teacher", "general", "student", "baseline")]
    (tmp_path / "again.html").write_text("what was there")
    status, out, err = run(capsys, "report", *runs, "--out", tmp_path / "again.html", *ASKED, "--json")
    assert status == 0, err
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page
    said = json.loads(out)
    assert said["runs"] == ["teacher", "general", "student", "baseline"] and said["left_out"] == []
    assert said["bytes"] == len(page.encode()) and set(said["models"]["student"]) == {"accuracy"}
    assert [path.name for path in tmp_path.iterdir()] == ["again.html"]


def test_a_run_without_a_teacher_and_its_speed(made, tmp_path, capsys):
    status, out, err = run(capsys, "report", made.here / "baseline", "--out", tmp_path / "r.html")
    assert status == 0 and out == f"{tmp_path}/r.html\n", err
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert re.findall(r'<section id="([\w-]+)"', page) == ["models", "training", "answers"] and figures(page)["lessons"] == []
    status, out, err = run(capsys, "report", made.here / "student", "--out", tmp_path / "r.html", "--examples", 10, "--sentences", 1)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert status == 0 and "the first 10 of 30 examples" in page and re.search(r'data-label="Speed">\d+\.\d×', page), err


@pytest.mark.parametrize("kind, words", [("numbers", "Predictions"), ("tokens", "Confusion"), ("questions", "exact match")])
def test_other_kinds_of_tasks(kinds, tmp_path, capsys, kind, words):
    status, _, err = run(capsys, "report", *kinds[kind], "--out", tmp_path / "r.html", "--no-speed", "--sentences", 2)
    assert status == 0, err
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert words in page and ("Confusion" in page) == (kind == "tokens") and ("Calibration" in page) == (kind == "tokens")
    (group,), (lesson,) = figures(page)["groups"], figures(page)["lessons"]
    assert [model["name"] for model in group] == ["teacher", "student"]
    assert (group[1]["scatter"] is not None) == (kind == "numbers")
    assert len(lesson["sentences"]) == 2 and all(value is None for row in lesson["students"][0]["distances"] for value in row)


def test_things_that_moved_are_found_beside_the_run_or_left_out_and_said(made, tmp_path, capsys):
    for name in ("teacher", "student", "data"):
        shutil.copytree(made.here / name, tmp_path / "moved" / name)
    metrics = [tmp_path / "moved" / "student" / part / "metrics.jsonl" for part in (".", "intermediate")]
    for path in metrics:
        path.write_text(path.read_text().replace(str(made.here), str(tmp_path / "gone")))
    out = tmp_path / "r.html"
    status, _, err = run(capsys, "report", tmp_path / "moved" / "student", "--out", out, "--no-speed")
    assert status == 0 and "warning" not in err and "<section id=\"notes\"" not in out.read_text(), err
    other = Bert.load(tmp_path / "moved" / "teacher")
    other.parameters.flat[:] *= 1.01
    other.save(tmp_path / "moved" / "teacher")
    status, _, err = run(capsys, "report", tmp_path / "moved" / "student", "--out", out, "--no-speed")
    assert status == 0 and "has other weights than when the run began" in err
    shutil.rmtree(tmp_path / "moved" / "teacher")
    shutil.rmtree(tmp_path / "moved" / "data")
    status, _, err = run(capsys, "report", tmp_path / "moved" / "student", "--out", out, "--no-speed")
    page = out.read_text(encoding="utf-8")
    assert status == 0 and "its teacher cannot be shown" in err and "--data says where they are" in err
    assert re.findall(r'<section id="([\w-]+)"', page) == ["models", "training", "maps", "notes"] and "--teacher says where it is" in page
    again = ("--teacher", made.here / "teacher", "--data", made.data)
    status, _, err = run(capsys, "report", tmp_path / "moved" / "student", "--out", out, "--no-speed", *again)
    assert status == 0 and 'section id="attention"' in out.read_text() and "warning" not in err, err


def test_a_run_of_which_nothing_is_known_has_its_curves(made, tmp_path, capsys):
    shutil.copytree(made.here / "student", tmp_path / "old")
    for part in (".", "intermediate"):
        path = tmp_path / "old" / part / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "run"}) + "\n" for row in rows))
    status, _, err = run(capsys, "report", tmp_path / "old", "--out", tmp_path / "r.html", "--no-speed")
    assert status == 0 and "does not say what was run" in err
    status, _, err = run(
        capsys, "report", tmp_path / "old", "--out", tmp_path / "r.html", "--no-speed", "--teacher", made.here / "teacher", "--text", "good"
    )
    assert status == 0 and 'section id="attention"' in (tmp_path / "r.html").read_text(), err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("{here}/data",), "no metrics.jsonl in it"),
        (("{here}/student", "--teacher", "{here}/nowhere"), "nowhere"),
        (("{here}/student", "--teacher", "{here}/general"), "general"),
        (("{here}/student", "--data", "{here}/nowhere"), "nowhere: no such file or directory"),
        (("{here}/student", "--sentences", "25"), "a page has room for 24"),
        (("{here}/student", "--text", "good\udcff"), "not valid Unicode"),
        (("{here}/broken",), "the run's task is not what training writes there"),
    ],
)
def test_what_is_wrong_is_one_line(made, tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.setenv("MINITINYBERT_QUIET", "1")
    broken = made.here / "broken"
    if not broken.exists():
        shutil.copytree(made.here / "baseline", broken)
        text = (broken / "metrics.jsonl").read_text()
        (broken / "metrics.jsonl").write_text(text.replace('"name": "sst-2"', '"name": "sst-3"'))
    given = [a.format(here=made.here) for a in arguments]
    status, out, err = run(capsys, "report", *given, "--out", tmp_path / "r.html", "--no-speed")
    assert status == 2 and out == "" and words in err and err.count("\n") == 1 and err.startswith("minitinybert: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["page", "page.json", "model.safetensors", "here"])
def test_a_page_has_a_page_s_name(made, tmp_path, capsys, name):
    (tmp_path / "here").mkdir()
    status, _, err = run(capsys, "report", made.here / "baseline", "--out", tmp_path / name)
    assert status == 2 and "ends in .html" in err and err.count("\n") == 1


def test_runs_on_the_parts_of_one_file(tmp_path, capsys, monkeypatch):
    """The page has the dev part that the runs had, and the maps of a step whose model is gone; of a file that has changed, neither answers
    nor sentences."""
    monkeypatch.chdir(tmp_path)
    bert(tmp_path / "base", 2, 16, 3)
    rows = "".join(f'"{text}",{"yes" if label else "no"}\n' for text, label in sentences(np.random.default_rng(2), 120) if "<" not in text)
    (tmp_path / "reviews.csv").write_text("text,label\n" + rows, encoding="utf-8")
    common = ("--data", "reviews.csv", "--max-length", 20, "--log-every", 1)
    columns = ("--text-columns", "text", "--label-column", "label")
    assert run(capsys, "finetune", "--model", "base", *common, *columns, "--out", "teacher", "--epochs", 20, "--lr", 5e-3)[0] == 0
    steps = ("--intermediate-epochs", 1, "--epochs", 1)
    assert run(capsys, "distill", "task", "--teacher", "teacher", "--student", "1L-8D-2H-16F", *common, *steps, "--out", "student")[0] == 0
    assert run(capsys, "report", "teacher", "student", "--out", "report.html", "--no-speed")[0] == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'<section id="([\w-]+)"', page) == ["models", "training", "attention", "layers", "maps", "answers"]
    assert [(own["of"], own["name"]) for own in figures(page)["maps"]] == [
        ("student, intermediate step", name) for name in ("fit_dense_embedding", "fit_dense_hidden")
    ]
    judged = len(parts_rows(tmp_path / "reviews.csv", "dev"))
    assert 8 <= judged <= 14 and f"of {judged} examples of custom" in html.unescape(page)
    (tmp_path / "reviews.csv").write_text("text,label\n" + rows + '"good film",yes\n', encoding="utf-8")
    assert run(capsys, "report", "student", "--out", "report.html", "--no-speed")[0] == 0
    page = html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "reviews.csv: has changed since the run, and so would its dev part" in page and 'id="answers"' not in page


def parts_rows(path, part):
    task = in_parts(custom_task(path, ["text"], "label", ["no", "yes"]), parts_of(path))
    return read_split(task, path, part).texts
