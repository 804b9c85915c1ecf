"""Augmentation from files to files: the same for any number of processes, batches and stops; what it writes is read back and replays."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import small_mlm

from minitinybert.augmentation import files
from minitinybert.augmentation.candidates import Question
from minitinybert.augmentation.files import Settings, augment
from minitinybert.augmentation.vectors import Neighbours
from minitinybert.augmentation.words import Replacement, apply
from minitinybert.data.glue import TASKS, custom_task, read_split
from minitinybert.data.vectors import WordVectors
from minitinybert.errors import InputError

TEXTS = [
    "The film is a walking story, and it was very dull.",
    'he said "the movie was good"',
    "love",
    "a boring  plot of war\u2014it's bad!",
    "café, acting & war ",
    "she was\u2028very clever",
]


@pytest.fixture(scope="module")
def mlm(tmp_path_factory):
    return str(small_mlm.model(tmp_path_factory.mktemp("small") / "mlm", positions=32))


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    return small_mlm.write_glove(tmp_path_factory.mktemp("vectors") / "glove.txt")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(files, "_EXAMPLES", 2)


def write(directory, task, n=5):
    """Files in the task's layout; texts with quotes, odd spaces, and more pieces than the model has positions."""
    directory.mkdir()
    texts = [*TEXTS, "walking film " * 20][-n:]
    rows = []
    if task == "cola":
        rows = [f"x\t{i % 2}\t\t{text}" for i, text in enumerate(texts)]
    elif task == "sst-2":
        rows = ["sentence\tlabel", *(f"{text}\t{i % 2}" for i, text in enumerate(texts))]
    elif task == "sts-b":
        names = ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score"]
        rows = ["\t".join(names), *("\t".join([*"0123456", text, texts[i - 1], f"{i / 2}"]) for i, text in enumerate(texts))]
    for split in ("train", "dev"):
        (directory / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return directory


def outcome(out):
    return (out / "train.tsv").read_bytes(), (out / "provenance.jsonl").read_bytes()


@pytest.mark.parametrize("recipe", ["paper", "huawei-2019"])
@pytest.mark.parametrize("name", ["cola", "sst-2", "sts-b"])
def test_rows_labels_and_provenance(tmp_path, mlm, vectors, name, recipe):
    task, data, out = TASKS[name], write(tmp_path / "data", name, 7), tmp_path / "out"
    summary = augment(mlm, vectors, task, data, out, recipe, 3, 0.5, provenance=True, workers=1)
    source, made = read_split(task, data, "train"), read_split(task, out, "train")
    records = [json.loads(line) for line in (out / "provenance.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert len(records) == len(made) == summary["rows"] and summary["examples"] == 7
    assert (len(made) == 28) if recipe == "paper" else (7 < len(made) <= 7 * (4 if name != "sts-b" else 7))
    assert [record["row"] for record in records] == sorted(record["row"] for record in records)
    counted = {"bert": 0, "glove": 0}
    for i, record in enumerate(records):
        j = source.rows.index(record["row"])
        assert made.labels[i] == source.labels[j]
        for side, (texts, sources) in enumerate([(made.texts, source.texts), (made.pairs, source.pairs)][: 1 + (source.pairs is not None)]):
            replaced = [Replacement(**{k: v for k, v in r.items() if k != "side"}) for r in record["replacements"] if r["side"] == side]
            assert apply(sources[j], replaced) == texts[i]
            assert all(sources[j][r.start : r.stop] == r.word for r in replaced)
        for r in record["replacements"]:
            counted[r["source"]] += 1
        assert record["copy"] or not record["replacements"]
    assert sum(record["copy"] == 0 for record in records) == 7
    assert counted == {k: summary[k] for k in counted} and min(counted.values()) > 0 and sum(counted.values()) <= summary["words"]
    assert (out / "dev.tsv").read_bytes() == (data / "dev.tsv").read_bytes()
    if name != "sst-2":  # a column that nobody reads
        lines = (out / "train.tsv").read_bytes().split(b"\n")[name != "cola" : -1]
        assert [line.split(b"\t")[0] for line in lines] == [str(i).encode() for i in range(len(made))]
    assert sorted(path.name for path in out.iterdir()) == ["augment.json", "dev.tsv", "provenance.jsonl", "train.tsv"]


def test_processes_batches_and_shards_do_not_matter(tmp_path, mlm, vectors, monkeypatch):
    task, data = TASKS["sts-b"], write(tmp_path / "data", "sts-b", 7)
    run = lambda name, **more: augment(mlm, vectors, task, data, tmp_path / name, copies=3, provenance=True, **more)
    summary = run("one", workers=1)
    assert {**run("two", workers=2), "train": summary["train"]} == summary
    run("small batches", workers=1, rows=1)
    run("another seed", workers=1, seed=1)
    monkeypatch.setattr(files, "_EXAMPLES", 100)
    run("one shard", workers=1)
    one = outcome(tmp_path / "one")
    assert outcome(tmp_path / "two") == outcome(tmp_path / "small batches") == outcome(tmp_path / "one shard") == one
    assert outcome(tmp_path / "another seed") != one


def test_a_run_that_was_stopped_goes_on(tmp_path, mlm, vectors, monkeypatch):
    task, data = TASKS["sst-2"], write(tmp_path / "data", "sst-2", 7)
    run = lambda name, **more: augment(mlm, vectors, task, data, tmp_path / name, copies=2, provenance=True, workers=1, **more)
    run("whole")
    make, made = files._Maker._make, []

    def stop_at_the_third(maker, job):
        if job.number == 2:
            raise KeyboardInterrupt
        made.append(job.number)
        make(maker, job)

    monkeypatch.setattr(files._Maker, "_make", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    assert not (tmp_path / "stopped" / "train.tsv").exists()
    monkeypatch.setattr(files._Maker, "_make", lambda maker, job: made.append(job.number) or make(maker, job))
    with pytest.raises(InputError, match="another choice of settings"):
        run("stopped", resume=True, seed=3)
    shutil.copytree(tmp_path / "stopped", tmp_path / "anew")
    summary = run("stopped", resume=True)
    assert made == [0, 1, 2, 3] and outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")
    assert run("stopped", resume=True) == summary and made == [0, 1, 2, 3]  # it is done
    with pytest.raises(InputError, match="another choice of settings"):
        run("stopped", resume=True, probability=0.1)
    run("anew")
    assert made == [0, 1, 2, 3] * 2 and outcome(tmp_path / "anew") == outcome(tmp_path / "whole")
    (data / "train.tsv").write_text("sentence\tlabel\ngood\t1\n")
    with pytest.raises(InputError, match="another choice of"):
        run("stopped", resume=True)


def test_a_killed_process_leaves_nothing_half_written(tmp_path, mlm, vectors):
    data, out = write(tmp_path / "data", "sst-2", 7), tmp_path / "out"
    script = f"""
import os
from minitinybert.augmentation import files
from minitinybert.data.glue import TASKS
files._EXAMPLES, write = 2, files.write_json
def die(path, value):
    if path.name == "shard-00001.json": os._exit(9)
    write(path, value)
files.write_json = die
files.augment({mlm!r}, {str(vectors)!r}, TASKS["sst-2"], {str(data)!r}, {str(out)!r}, copies=2, provenance=True, workers=1)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 9
    assert (out / "augment-shards" / "shard-00000.json").exists() and not (out / "train.tsv").exists()
    arguments = (mlm, vectors, TASKS["sst-2"], data)
    augment(*arguments, out, copies=2, provenance=True, workers=1, resume=True)
    augment(*arguments, tmp_path / "whole", copies=2, provenance=True, workers=1)
    assert outcome(out) == outcome(tmp_path / "whole")


def test_shards_that_were_half_removed_are_gone_on_with_by_nobody(tmp_path, mlm, vectors, monkeypatch):
    """A process that is killed while it removes them leaves some parts of a shard and not others."""
    data = write(tmp_path / "data", "sst-2", 7)
    run = lambda name, **more: augment(
        mlm, vectors, TASKS["sst-2"], data, tmp_path / name, workers=1, provenance=True, **{"copies": 2, **more}
    )
    run("whole")
    monkeypatch.setattr(files, "_finish", lambda *arguments: {})
    run("begun")  # all shards are there
    monkeypatch.undo()
    order = []
    monkeypatch.setattr(files.Path, "unlink", lambda path, **more: order.append(path.name) or os.unlink(path))
    monkeypatch.setattr(files.shutil, "rmtree", lambda path: order.append(path.name) or (path / "shard-00000.tsv").unlink() or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("begun", copies=3)  # another run, which has to remove them first
    monkeypatch.undo()
    assert order[:2] == ["plan.json", "augment-shards"] and (tmp_path / "begun" / "augment-shards" / "shard-00000.json").exists()
    run("begun", resume=True)
    assert outcome(tmp_path / "begun") == outcome(tmp_path / "whole")


def test_a_run_that_was_killed_when_all_was_done_leaves_no_shards(tmp_path, mlm, vectors, monkeypatch):
    data, out = write(tmp_path / "data", "sst-2", 7), tmp_path / "out"
    monkeypatch.setattr(files.Shards, "remove", lambda shards: None if not shards.directory.exists() else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        augment(mlm, vectors, TASKS["sst-2"], data, out, copies=2, workers=1)
    monkeypatch.undo()
    assert (out / "augment.json").exists() and (out / "augment-shards").exists()
    augment(mlm, vectors, TASKS["sst-2"], data, out, copies=2, workers=1, resume=True)
    assert not (out / "augment-shards").exists()


def test_again_without_provenance_and_the_original(tmp_path, mlm, vectors):
    data, out = write(tmp_path / "data", "sst-2"), tmp_path / "out"
    arguments = (mlm, vectors, TASKS["sst-2"], data, out)
    augment(*arguments, copies=2, provenance=True, workers=1)
    assert augment(*arguments, copies=2, original=False, workers=1)["rows"] == 10
    assert len(read_split(TASKS["sst-2"], out, "train")) == 10 and not (out / "provenance.jsonl").exists()


def test_own_data_with_quotes_and_tabs(tmp_path, mlm, vectors):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    rows = [{"review": 'the "film"\twas\nvery good', "stars": "many"}, {"review": "dull", "stars": "few"}]
    for name in ("train", "dev"):
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = custom_task(data, ["review"], "stars")
    augment(mlm, vectors, task, data, out, copies=4, probability=0.3, provenance=True, workers=1)
    made = read_split(custom_task(out, ["review"], "stars"), out, "train")
    assert len(made) == 10 and made.texts[0] == 'the "film" was very good' and made.labels.tolist() == [1] * 5 + [0] * 5
    records = [json.loads(line) for line in (out / "provenance.jsonl").read_text().splitlines()]
    for text, record in zip(made.texts, records, strict=True):
        replaced = [Replacement(**{k: v for k, v in r.items() if k != "side"}) for r in record["replacements"]]
        assert apply(rows[record["row"] - 1]["review"], replaced).replace("\t", " ").replace("\n", " ") == text
    assert (out / "dev.jsonl").exists()


def test_the_recipe_s_own_numbers(tmp_path, mlm, vectors):
    data = write(tmp_path / "data", "sst-2", 1)
    assert augment(mlm, vectors, TASKS["sst-2"], data, tmp_path / "out", workers=1)["rows"] == 21
    plan = json.loads((tmp_path / "out" / "augment.json").read_text())["plan"]
    assert plan["settings"] == {"recipe": "paper", "copies": 20, "probability": 0.4, "candidates": 15, "original": True, "seed": 0}


@pytest.mark.parametrize("recipe", ["paper", "huawei-2019"])
def test_bert_answers_with_k_words_or_with_those_among_k_pieces(tmp_path, mlm, recipe):
    """The released code drops ##pieces from its K."""
    K, few = 15, 0
    maker = files._Maker(mlm, {}, Settings(recipe, candidates=K), TASKS["sst-2"], files.Shards(tmp_path), False, "cpu", 100)
    ids = [id for word in maker.reader.split(["the film is very dull"])[0] for id in word.ids]
    mask = small_mlm.PIECES.index("[MASK]")
    questions = [Question((*ids[:i], mask, *ids[i + 1 :]), i) for i in range(len(ids))]
    for q, answer in zip(questions, maker.augmenter.ask(questions), strict=True):
        trace, _ = maker.model.forward(np.array([[2, *q.ids, 3]]))
        order = np.argsort(-trace.logits[0, q.mask + 1]).tolist()
        words = [small_mlm.PIECES[id] for id in order if maker.reader.whole[id]]
        best = {small_mlm.PIECES[id] for id in order[:K]}
        assert len(set(answer)) == len(answer)
        assert set(answer) == (set(words[:K]) if recipe == "paper" else best & set(words))
        few += len(answer) < K
        assert recipe == "huawei-2019" or len(answer) == K
    assert few == (len(ids) if recipe == "huawei-2019" else 0)


def test_what_the_tokenizer_takes_for_special_comes_into_no_text(mlm, tmp_path):
    """Vectors of text that held [MASK] or an added token: these would be read as tokens of their own."""
    special = ["[MASK]", "[SEP]", "[UNK]", "[CLS]", "[PAD]"]
    table = [f"{word} 1 {i}\n" for i, word in enumerate(["walking", "movie", *special, "x[SEP]y", "boring"])]
    (tmp_path / "v.txt").write_text("".join(table))
    (tmp_path / "data").mkdir()
    for split in ("train", "dev"):
        (tmp_path / "data" / f"{split}.tsv").write_text("sentence\tlabel\nwalking movie walking\t1\nboring\t0\n")
    augment(str(mlm), tmp_path / "v.txt", TASKS["sst-2"], tmp_path / "data", tmp_path / "out", copies=20, probability=1.0, workers=1)
    texts = read_split(TASKS["sst-2"], tmp_path / "out", "train").texts
    assert {word for text in texts for word in text.split()} == {"walking", "movie", "boring"} and len(texts) == 42


@pytest.mark.parametrize("recipe", ["paper", "huawei-2019"])
@pytest.mark.parametrize("K", [1, 4, 15])
def test_vectors_answer_with_the_k_nearest_words(vectors, recipe, K):
    found = files._neighbours({"walking": False, "movie": False, "love": True}, vectors, Settings(recipe, candidates=K))
    names, table = small_mlm.vectors()
    assert found == dict(zip(["walking", "movie"], Neighbours(WordVectors(names, table)).nearest(["walking", "movie"], K), strict=True))
    assert all(len(near) == K for near in found.values())


@pytest.mark.parametrize("recipe, limit", [("paper", None), ("huawei-2019", 100_000)])
def test_how_many_vectors_a_recipe_reads(tmp_path, mlm, vectors, monkeypatch, recipe, limit):
    load, limits = files.load_vectors, []
    monkeypatch.setattr(files, "load_vectors", lambda source, limit=None: limits.append(limit) or load(source, limit))
    augment(mlm, vectors, TASKS["sst-2"], write(tmp_path / "data", "sst-2"), tmp_path / "out", recipe, 1, workers=1)
    assert limits == [limit]


def test_what_is_beyond_the_released_code_s_vectors_has_no_neighbours(vectors, monkeypatch):
    monkeypatch.setattr(files, "HUAWEI_VECTORS", 3)
    words = dict.fromkeys(small_mlm.SEVERAL, False)
    found = files._neighbours(words, vectors, Settings("huawei-2019", candidates=2))
    assert list(found) == small_mlm.SEVERAL[:3] and all(set(near) <= set(small_mlm.SEVERAL[:3]) for near in found.values())
    assert list(files._neighbours(words, vectors, Settings(candidates=2))) == small_mlm.SEVERAL


def test_under_which_name_a_word_s_vector_is_found(tmp_path):
    """paper: as it is written, then in lower case; huawei-2019: the basic token."""
    path = tmp_path / "v.txt"
    path.write_text("Walking 1 0\nwalking 0 1\ncaf\u00e9 1 1\nnear-1 1 0.1\nnear-2 0.1 1\nnear-3 1 0.9\n", encoding="utf-8")
    words = dict.fromkeys(["Walking", "WALKING", "walking", "Caf\u00e9"], False)
    nearest = lambda recipe: files._neighbours(words, path, Settings(recipe, candidates=1))
    assert nearest("paper") == {"Walking": ["near-1"], "WALKING": ["near-2"], "walking": ["near-2"], "Caf\u00e9": ["near-3"]}
    assert nearest("huawei-2019") == dict.fromkeys(["Walking", "WALKING", "walking"], ["near-2"])


def test_what_is_wrong_is_said(tmp_path, mlm, vectors):
    task, data, out = TASKS["sst-2"], write(tmp_path / "data", "sst-2"), tmp_path / "out"
    for head in ("none", "classifier"):
        place = small_mlm.model(tmp_path / head / "model", head)
        with pytest.raises(InputError, match="no masked-language-model head"):
            augment(str(place), vectors, task, data, out, workers=1)
    other = tmp_path / "other.txt"
    other.write_text("xyzzy 1 2\nplugh 3 4\n")
    with pytest.raises(InputError, match="none of the training file's .* words"):
        augment(mlm, other, task, data, out, workers=1)
    with pytest.raises(InputError, match="is --data too"):
        augment(mlm, vectors, task, data, data, workers=1)
    with pytest.raises(InputError, match="train.tsv that augment did not write"):
        augment(mlm, vectors, task, data, shutil.copytree(data, tmp_path / "copy"), workers=1)
    with pytest.raises(InputError, match="--copies 0"):
        augment(mlm, vectors, task, data, out, copies=0, workers=1)
    (data / "train.tsv").write_text("sentence\tlabel\n")
    with pytest.raises(InputError, match="no examples"):
        augment(mlm, vectors, task, data, out, workers=1)
    assert not out.exists()


def test_a_process_that_dies(tmp_path, mlm, vectors):
    """The model has gone away when the processes start."""
    task, data = TASKS["sst-2"], write(tmp_path / "data", "sst-2")
    source = read_split(task, data, "train")
    maker = files._Maker(mlm, {}, files.Settings(copies=1), task, files.Shards(tmp_path), False, "cpu", 100)
    with pytest.raises(InputError, match="one of 2 processes died"):
        files._make_all(maker, list(files._jobs(source)), str(tmp_path / "nowhere"), 2)
