"""The demo from end to end, on a small model, sentences and vectors of the tests' own in the place of what it fetches."""

from dataclasses import replace

import numpy as np
import pytest
import small_mlm

from minitinybert.commands import demo
from minitinybert.errors import InputError
from minitinybert.machine import Machine

OPTIONS = ("TEACHER", "GENERAL", "MLM", "INTERMEDIATE", "PREDICTION", "BASELINE")


def sentence(rng, good):
    film, very = rng.choice(["film", "story", "plot"]), "very " * rng.integers(3)
    return f"the {film} was {very}{'good' if good else 'dull'} and it is a movie of {rng.choice(['love', 'war'])}"


@pytest.fixture
def small(tmp_path, monkeypatch):
    def write_data(directory, seed):
        rng = np.random.default_rng(seed)
        directory.mkdir(parents=True, exist_ok=True)
        for split, n in (("train", 60), ("dev", 20), ("test", 20)):
            rows = [f"{sentence(rng, i % 2)}\t{i % 2}" for i in range(n)]
            (directory / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n", encoding="utf-8")
        text = [sentence(rng, i % 2) for i in range(100)]
        (directory / "corpus.txt").write_text("\n".join(text) + "\n", encoding="utf-8")
        return directory

    monkeypatch.setattr(demo, "_data", write_data)
    monkeypatch.setattr(demo, "VECTORS", str(small_mlm.write_glove(tmp_path / "glove.txt")))
    monkeypatch.setattr(demo, "STUDENT", "1L-8D-2H-16F")
    monkeypatch.setattr(demo, "PROBABILITY", 0.5)
    monkeypatch.setattr(demo, "GENERAL_SENTENCES", 80)
    monkeypatch.setattr(demo, "MLM_SENTENCES", 80)
    for name in OPTIONS:
        monkeypatch.setattr(demo, name, replace(getattr(demo, name), epochs=1, batch_size=8))
    monkeypatch.setattr(demo, "TEACHER", replace(demo.TEACHER, epochs=20, lr=3e-3))  # a teacher that knows nothing is refused
    return str(small_mlm.model(tmp_path / "weights", head="none"))


def test_the_whole_demo(small, tmp_path):
    with Machine("cpu", 1) as machine:
        report = demo.run(tmp_path / "out", machine, teacher=small)
        with pytest.raises(InputError, match="not empty"):
            demo.run(tmp_path / "out", machine, teacher=small)
    assert set(report["models"]) == {"teacher", "student", "baseline"} and report["test_sentences"] == 20
    assert report["kept"] == report["models"]["student"]["accuracy"] / report["models"]["teacher"]["accuracy"]
    told, summary = demo.format_report(report), report["augmentation"]
    against = report["against_control"]
    gap = report["models"]["student"]["accuracy"] - report["models"]["baseline"]["accuracy"]
    assert against["only_a"] - against["only_b"] == round(20 * gap) and 0 < against["p"] <= 1
    assert all(low <= row["accuracy"] <= high for row in report["models"].values() for low, high in [row["interval"]])
    assert f"the student has {against['only_a']}, the control {against['only_b']}: p = " in told
    assert summary["examples"] == 60 and summary["rows"] == 120 and summary["bert"] > 0 and summary["glove"] > 0
    assert f"60 sentences became 120, with {summary['bert']} words by BERT and {summary['glove']} by GloVe" in told
    assert report["example"]["sentence"] != report["example"]["augmented"] and report["example"]["augmented"] in told
    assert f"{tmp_path}/out/report.html" in told
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert all(f'id="{part}"' in page for part in ("models", "training", "attention", "layers", "maps", "answers"))
    assert 'id="notes"' not in page  # nothing is left out
    for name in ("losses.png", "attention.png", "report.json", "general/model.safetensors", "student/model.safetensors"):
        assert (tmp_path / "out" / name).stat().st_size > 0
