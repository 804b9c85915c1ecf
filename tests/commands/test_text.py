"""Text that a model's vocabulary does not know, in every command that reads some; and vocabularies of the corpus."""

import json

import pytest
import small_mlm

from minitinybert.commands.cli import main
from minitinybert.data.tokenizer import Tokenizer

ENGLISH = ["the film is good", "the story is bad", "a dull plot", "the war was very bad"]
RUSSIAN = ["фильм хороший", "плохая история", "скучный сюжет", "война была плохой"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    small_mlm.write_glove(root / "glove.txt")
    return {
        "mlm": small_mlm.model(root / "mlm", positions=32),
        "teacher": small_mlm.model(root / "teacher", "classifier", 32),
        "root": root,
    }


def write(root, texts):
    """A corpus of the texts, and a task whose rows they are."""
    (root / "corpus.txt").write_text("\n".join(texts * 10) + "\n", encoding="utf-8")
    for split in ("train", "dev"):
        rows = [f"{text}\t{i % 2}" for i, text in enumerate(texts * 4)]
        (root / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n", encoding="utf-8")


def commands(models, root):
    """name -> arguments of each command that trains, or makes what is trained on."""
    task, corpus = ("--task", "sst-2", "--data", root), ("--corpus", root / "corpus.txt")
    out, short = ("--out", root / "out"), ("--epochs", 0.1, "--max-length", 16)
    augment = ("augment", "--mlm", models["mlm"], "--vectors", models["root"] / "glove.txt", *task, *out)
    return {
        "finetune": ("finetune", "--model", models["mlm"], *task, *out, *short),
        "pretrain": ("pretrain", "--model", models["mlm"], *corpus, *out, *short),
        "general": ("distill", "general", "--teacher", models["mlm"], "--student", "1L-8D-2H-8F", *corpus, *out, *short),
        "task": ("distill", "task", "--teacher", models["teacher"], "--student", "1L-8D-2H-8F", *task, *out, *short),
        "augment": (*augment, "--copies", 1, "--processes", 1),
    }


@pytest.mark.parametrize("name", ["finetune", "pretrain", "general", "task", "augment"])
def test_text_that_is_all_unknown_is_not_trained_on(models, tmp_path, capsys, name):
    write(tmp_path, RUSSIAN)
    assert main([str(a) for a in commands(models, tmp_path)[name]]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "every word is [UNK] to the vocabulary of" in error and ("corpus.txt" in error or "train.tsv" in error)
    assert not (tmp_path / "out" / "model.safetensors").exists() and not (tmp_path / "out" / "train.tsv").exists()


@pytest.mark.parametrize("name", ["finetune", "pretrain", "general", "augment"])
def test_text_of_which_much_is_unknown_is_warned_of(models, tmp_path, capsys, name):
    write(tmp_path, [f"{a} {b}" for a, b in zip(ENGLISH, RUSSIAN, strict=True)])
    assert main([str(a) for a in commands(models, tmp_path)[name]]) == 0
    share = (2 + 2 + 2 + 3) / (6 + 6 + 5 + 8)  # Russian words among all
    assert f"{share:.0%} of the word pieces are [UNK]" in capsys.readouterr().err


def test_predict_tells_of_texts_that_are_unknown(models, capsys):
    predict = lambda *texts: main(["predict", "--model", str(models["teacher"]), "--max-length", "16", *texts])
    assert predict(*ENGLISH) == 0 and "warning" not in capsys.readouterr().err
    assert predict(*ENGLISH * 4, RUSSIAN[0]) == 0
    assert "the texts: of 1 of 17 texts the model sees nothing but [UNK]" in capsys.readouterr().err
    assert predict(*RUSSIAN) == 0
    assert "100% of the word pieces are [UNK]" in capsys.readouterr().err


def test_a_text_that_is_half_a_surrogate_pair_is_told_of(models, tmp_path, capsys):
    assert main(["predict", "--model", str(models["teacher"]), "--max-length", "16", "bad \udcff"]) == 2
    assert "not valid Unicode" in capsys.readouterr().err
    for name in ("train", "dev"):
        lines = [json.dumps({"sentence": text, "label": i % 2}) for i, text in enumerate(["the film", "a story \ud83d"])]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    for name in ("finetune", "task", "augment"):
        assert main([str(a) for a in commands(models, tmp_path)[name]]) == 2
        assert r"train.jsonl, line 2: not JSON ('\ud83d' is half a surrogate pair" in capsys.readouterr().err


def test_a_vocabulary_of_the_corpus_is_not_mixed_up(tmp_path, capsys):
    """Kept for a run that goes on, refused for other text or another size."""
    write(tmp_path, ["müsste musste", "Film film", "möchte mochte"] * 10)
    run = ["pretrain", "--model", "1L-8D-2H-8F", "--corpus", tmp_path / "corpus.txt", "--epochs", 0.1, "--max-length", 16]
    run = [str(a) for a in (*run, "--out", tmp_path / "out", "--cased", "--train-vocabulary")]
    assert main([*run, "60"]) == 0
    tokenizer = Tokenizer.load(tmp_path / "out")
    (a, b, c, d) = tokenizer.encode(["müsste", "musste", "Film", "film"])
    assert a.input_ids.tolist() != b.input_ids.tolist() and c.input_ids.tolist() != d.input_ids.tolist()
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["do_lower_case"] is False
    assert main([*run, "60", "--resume"]) == 0
    capsys.readouterr()
    for more in (["40"], ["40", "--resume"], ["60", "--keep-accents", "--resume"]):
        if more[1:2] == ["--keep-accents"]:
            run.remove("--cased")
        assert main([*run, *more]) == 2
        assert "tokenizer: holds a vocabulary with" in (error := capsys.readouterr().err) and error.count("\n") == 1
    write(tmp_path, ENGLISH * 10)
    assert main([*run[:-1], "--cased", "--train-vocabulary", "60", "--resume"]) == 2
    assert "holds a vocabulary with corpus corpus.txt, which have changed since" in capsys.readouterr().err
    assert main([*run[:-1], "--cased", "--tokenizer", str(tmp_path / "out")]) == 2
    assert "--cased and --keep-accents are of --train-vocabulary" in capsys.readouterr().err
