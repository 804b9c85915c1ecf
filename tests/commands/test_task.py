"""Whole tasks by commands.task's functions: a regression, and MNLI with its two dev and two test files; which teachers are refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minitinybert.commands import task as task_command
from minitinybert.commands.answer import evaluate, predict, predict_test
from minitinybert.commands.task import check_teacher, distill_task, finetune, load_teacher
from minitinybert.commands.task_data import TaskData
from minitinybert.data.glue import TASKS, read_split
from minitinybert.data.tokenizer import Tokenizer
from minitinybert.distillation.recipes import RECIPES
from minitinybert.errors import InputError
from minitinybert.machine import Machine
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.model.trace import Trace
from minitinybert.training.loop import Options
from minitinybert.training.plan import finetune_options
from minitinybert.weights.convert import convert

SCALE = ["awful", "bad", "poor", "fine", "good", "great"]
SAYS = {"bad": "contradiction", "good": "entailment", "fine": "neutral"}
OTHERS = ["film", "plot", "actor", "scene", "the", "a", "is", "was", "very"]
STS_B, MNLI = TASKS["sts-b"], TASKS["mnli"]
LONG, SHORT = Options(epochs=15, batch_size=16, lr=5e-3), Options(epochs=2, batch_size=16, lr=3e-3)


def new_model(directory, seed=3, words=(*SCALE, *OTHERS), **sizes):
    """A small random BERT without dropout, and its tokenizer of a few words."""
    directory.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "initializer_range": 0.1}
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = Config(vocab_size=len(vocabulary), max_position_embeddings=128, **small, **none, **sizes)
    Bert(config, Bert.new(config, seed).parameters, {"vocab.txt": directory / "vocab.txt"}).save(directory / "saved")
    return str(directory / "saved")


def changed(path, out, change):
    """A copy of a saved model whose classifier's weight and bias are `change(tensor)`, and its path."""
    model = Bert.load(path)
    for name in ("classifier.weight", "classifier.bias"):
        model.parameters[name][...] = change(model.parameters[name].copy())
    model.save(out)
    return str(out)


def pairs(rng, words):
    """(first, second) texts; each of `words` is in one second text."""
    rows = []
    for word in words:
        first, second = (list(rng.choice(OTHERS, rng.integers(1, 5))) for _ in range(2))
        second.insert(int(rng.integers(len(second) + 1)), word)
        rows.append((" ".join(first), " ".join(second)))
    return rows


def write(path, texts, labels, name):
    columns = ["index", "sentence1", "sentence2", *([name] if labels is not None else [])]
    lines = ["\t".join(columns)]
    for i, row in enumerate(texts):
        lines.append("\t".join([str(i), *row, *([str(labels[i])] if labels is not None else [])]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def machine():
    with Machine("cpu", 1) as machine:
        yield machine


@pytest.fixture(scope="module")
def model(root):
    return new_model(root / "model")


# ------------------------------------------------------------------------------------------------------------------ regression


@pytest.fixture(scope="module")
def scores(root):
    """STS-B's columns; the score is said by a word of the second text."""
    directory, rng = root / "sts-b", np.random.default_rng(0)
    directory.mkdir()
    for split, n in (("train", 120), ("dev", 24), ("test", 8)):
        numbers = rng.integers(0, len(SCALE), n)
        labels = None if split == "test" else np.clip(numbers + rng.choice([-0.25, 0, 0.25], n), 0, 5)
        write(directory / f"{split}.tsv", pairs(rng, [SCALE[i] for i in numbers]), labels, "score")
    return directory


@pytest.fixture(scope="module")
def scorer(root, model, scores, machine):
    results = finetune(model, STS_B, scores, root / "scorer", LONG, machine)
    assert results["dev"]["pearson"] > 0.9
    return str(root / "scorer")


def asked(data, split, task=STS_B):
    examples = read_split(task, data, split)
    return [f"{a} ||| {b}" for a, b in zip(examples.texts, examples.pairs, strict=True)], examples.labels


def answers(model, texts, machine):
    return np.array([answer["score"] for answer in predict(model, texts, machine)])


def is_a_scorer(path):
    config = Bert.load(path).config
    return config.num_labels == 1 and config.problem_type == "regression" and config.id2label == {0: "score"}


@pytest.mark.parametrize("recipe", ["default", "huawei-2019"])
def test_a_regression_from_teacher_to_student(scorer, scores, machine, tmp_path, recipe):
    assert is_a_scorer(scorer)
    out, n = tmp_path / "student", 120
    more = {"intermediate": LONG, "prediction": Options(epochs=40, batch_size=n, lr=1e-2, log_every=1), "recipe": RECIPES[recipe]}
    results = distill_task(scorer, "2L-16D-2H-24F", STS_B, scores, out, machine, max_length=16, keep_state=True, **more)
    rows = [row for line in (out / "intermediate/metrics.jsonl").read_text().splitlines() if "layers" in (row := json.loads(line))]
    assert rows and all(set(row["layers"]) == {"hidden.1", "hidden.2", "attention.1", "attention.2"} for row in rows)
    for row, term in ((row, term) for row in rows for term in ("hidden", "attention")):
        assert row["losses"][term] == pytest.approx(row["layers"][f"{term}.1"] + row["layers"][f"{term}.2"], rel=1e-5)
    assert is_a_scorer(out) and is_a_scorer(out / "intermediate")
    assert results["dev"]["pearson"] > 0.6
    assert evaluate(str(out), STS_B, scores, machine, 16) == results
    texts, labels = asked(scores, "dev")
    assert np.corrcoef(answers(str(out), texts, machine), labels)[0, 1] == pytest.approx(results["dev"]["pearson"], abs=1e-5)
    # The first step's loss is over all of the training set, of the student as the intermediate step left it.
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [row["losses"] for row in rows if "losses" in row]
    texts, labels = asked(scores, "train")
    student, teacher = (answers(str(path), texts, machine) for path in (out / "intermediate", scorer))
    target = {"default": teacher, "huawei-2019": labels}[recipe]
    assert set(losses[0]) == {"prediction"}
    assert losses[0]["prediction"] == pytest.approx(np.mean((student - target) ** 2), rel=1e-4)
    assert losses[-1]["prediction"] < 0.6 * losses[0]["prediction"]  # it starts at the labels' mean


def test_augmented_scores_are_not_learned_by_the_prediction_step(scorer, scores, machine, tmp_path, monkeypatch):
    """What augment has written is known by its augment.json; the recipe says whether that will do."""
    augmented = tmp_path / "augmented"
    shutil.copytree(scores, augmented)
    (augmented / "augment.json").write_text("{}", encoding="utf-8")
    trained = []
    monkeypatch.setattr(task_command, "_train", lambda *given: trained.append(given[2].directory) or given[0].save(given[4]))
    distil = lambda name, recipe, **more: distill_task(
        scorer, "2L-16D-2H-24F", STS_B, augmented, tmp_path / name, machine, recipe=RECIPES[recipe], max_length=16, **more
    )
    for recipe in ("default", "paper"):
        with pytest.raises(InputError, match="augmented; sts-b's prediction step learns from the original data: give it by --prediction-d"):
            distil("refused", recipe)
        with pytest.raises(InputError, match="augmented"):
            distil("refused", recipe, prediction_data=augmented)
        distil(recipe, recipe, prediction_data=scores)
        distil(recipe + " first", recipe, stage="intermediate")
    distil("released", "huawei-2019")
    assert trained == [augmented, scores, augmented] * 2 + [augmented, augmented] and not (tmp_path / "refused").exists()


def test_the_released_code_keeps_the_best_by_the_mean_of_both_correlations(model, scores, machine, tmp_path):
    results = {}
    for name in ("default", "huawei-2019"):
        recipe = replace(RECIPES[name], incomplete_batches=True)
        options = finetune_options(recipe, {"epochs": 1, "batch_size": 60, "lr": 5e-3})
        results[name] = finetune(model, STS_B, scores, tmp_path / name, options, machine, 16, recipe=recipe)
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        (dev,) = [row["dev"] for row in rows if "dev" in row]
        assert list(dev) == [*["mean_correlation"] * (name != "default"), "pearson", "spearman"]
        assert dev.get("mean_correlation", 0.5) == pytest.approx((dev["pearson"] + dev["spearman"]) / 2 if name != "default" else 0.5)
        assert list(results[name]["dev"]) == ["pearson", "spearman"]  # as evaluate has it


def test_scores_are_cut_to_the_scale_for_the_leaderboard_alone(scorer, scores, machine, tmp_path):
    texts, _ = asked(scores, "test")
    usual = answers(scorer, texts, machine)
    for shift in (0, 9, -9):
        moved = changed(scorer, tmp_path / f"moved {shift}", lambda tensor, shift=shift: tensor + shift * (tensor.ndim == 1))
        found = answers(moved, texts, machine)
        np.testing.assert_allclose(found, usual + shift, atol=1e-4)
        (path,) = predict_test(moved, STS_B, scores, tmp_path / f"answers {shift}", machine)
        rows = [line.split("\t") for line in Path(path).read_text(encoding="utf-8").splitlines()]
        assert path.endswith("STS-B.tsv") and rows[0] == ["index", "prediction"]
        assert [int(index) for index, _ in rows[1:]] == list(range(len(texts)))
        np.testing.assert_allclose([float(number) for _, number in rows[1:]], np.clip(found, 0, 5), atol=6e-4)
    assert set(np.clip(found, 0, 5)) == {0}


# ---------------------------------------------------------------------------------------------------- the relu before a classifier


def traces_of_dev(model, path, data):
    """What the model says of STS-B's dev texts, in the file's order."""
    dev = files_of(path, STS_B, data).split("dev")
    batch = dev.batch(np.arange(len(dev)))
    trace, _ = model.forward_batch(batch)
    place = np.argsort(batch.sentences)
    return Trace(pooled=trace.pooled[place], logits=trace.logits[place])


def logits_by_hand(path, data, relu):
    """Of STS-B's dev texts: classifier(relu(pooled)) or classifier(pooled), from the model's pooled output."""
    model = Bert.load(path)
    pooled = traces_of_dev(model, path, data).pooled
    W, b = (model.parameters[f"classifier.{name}"] for name in ("weight", "bias"))
    return (np.maximum(pooled, 0) if relu else pooled) @ W.T + b


def test_a_teacher_with_the_relu_is_made_and_every_command_computes_it(model, scores, machine, tmp_path, capsys):
    recipe = replace(RECIPES["huawei-2019"], incomplete_batches=True)
    options = finetune_options(recipe, {"epochs": 2, "batch_size": 16, "lr": 3e-3})
    results = finetune(model, STS_B, scores, tmp_path / "teacher", options, machine, 16, recipe=recipe)
    assert "BertForSequenceClassification does not compute" in capsys.readouterr().err
    raw = json.loads((tmp_path / "teacher" / "config.json").read_text())
    assert (raw["model_type"], raw["architectures"], raw["classifier_relu"]) == ("tinybert", ["TinyBertForSequenceClassification"], True)
    convert(tmp_path / "teacher", tmp_path / "converted")
    texts, _ = asked(scores, "dev")
    expected = logits_by_hand(tmp_path / "teacher", scores, True)[:, 0]
    assert np.abs(expected - logits_by_hand(tmp_path / "teacher", scores, False)[:, 0]).max() > 1e-2
    for place in ("teacher", "converted"):
        np.testing.assert_allclose(answers(str(tmp_path / place), texts, machine), expected, atol=1e-5)
        assert evaluate(str(tmp_path / place), STS_B, scores, machine, 16) == results
    # gone on with by another recipe the head stays
    again = finetune(str(tmp_path / "teacher"), STS_B, scores, tmp_path / "again", replace(SHORT, epochs=1), machine, 16)
    assert again and Bert.load(tmp_path / "again").config.classifier_relu


@pytest.mark.parametrize("recipe, relu", [("default", False), ("huawei-2019", True)])
def test_the_recipe_says_which_head_the_teacher_is_asked_with(scorer, scores, machine, capsys, recipe, relu):
    master = load_teacher(scorer, STS_B, machine, RECIPES[recipe])
    found = traces_of_dev(master, scorer, scores).logits
    np.testing.assert_allclose(found, logits_by_hand(scorer, scores, relu), atol=1e-5)
    assert ("asked with a relu before its classifier" in capsys.readouterr().err) == relu


# ------------------------------------------------------------------------------------------------------------------------ MNLI


@pytest.fixture(scope="module")
def entailments(root):
    """A word of the second text says the label; in dev_mismatched it does in two thirds of the rows, and says another in the rest."""
    directory, rng = root / "mnli", np.random.default_rng(1)
    directory.mkdir()
    words = list(SAYS)
    for split, n in (("train", 150), ("dev_matched", 30), ("dev_mismatched", 42), ("test_matched", 5), ("test_mismatched", 7)):
        said = rng.integers(0, 3, n)
        meant = (said + (np.arange(n) % 3 == 0)) % 3 if split == "dev_mismatched" else said
        labels = None if split.startswith("test") else [SAYS[words[i]] for i in meant]
        write(directory / f"{split}.tsv", pairs(rng, [words[i] for i in said]), labels, "gold_label")
    return directory


@pytest.fixture(scope="module")
def teacher(root, model, entailments, machine):
    results = finetune(model, MNLI, entailments, root / "teacher", LONG, machine)
    assert results == evaluate(str(root / "teacher"), MNLI, entailments, machine)
    return str(root / "teacher")


@pytest.fixture(scope="module")
def of_another_order(root, teacher):
    """The same teacher, as others order the labels."""
    turned = Bert.load(changed(teacher, root / "turned rows", lambda tensor: tensor[[1, 2, 0]]))
    names = {0: "ENTAILMENT", 1: "NEUTRAL", 2: "CONTRADICTION"}
    Bert(replace(turned.config, id2label=names), turned.parameters, turned.tokenizer_files).save(root / "turned")
    return str(root / "turned")


def test_both_dev_sets_are_judged_by_their_own_labels(teacher, entailments, machine):
    results = evaluate(teacher, MNLI, entailments, machine)
    assert list(results) == ["dev_matched", "dev_mismatched"]
    for split, values in results.items():
        texts, labels = asked(entailments, split, MNLI)
        right = [answer["label"] == MNLI.labels[label] for answer, label in zip(predict(teacher, texts, machine), labels, strict=True)]
        assert values == {"accuracy": pytest.approx(np.mean(right))}
    assert results["dev_matched"]["accuracy"] > 0.9 and 0.6 < results["dev_mismatched"]["accuracy"] < 0.7
    assert list(evaluate(teacher, MNLI, entailments, machine, splits=["dev_mismatched"])) == ["dev_mismatched"]


def test_a_test_file_s_answers_are_in_its_own_file(teacher, of_another_order, entailments, machine, tmp_path):
    for model in (teacher, of_another_order):
        paths = predict_test(model, MNLI, entailments, tmp_path / "out", machine)
        assert paths == [str(tmp_path / "out" / name) for name in ("MNLI-m.tsv", "MNLI-mm.tsv")]
        for path, split in zip(paths, MNLI.test_splits, strict=True):
            words = [next(word for word in SAYS if word in text.split()) for text in asked(entailments, split, MNLI)[0]]
            expected = [f"{i}\t{SAYS[word]}" for i, word in enumerate(words)]
            assert Path(path).read_text(encoding="utf-8").splitlines() == ["index\tprediction", *expected]


def test_the_diagnostics_are_answered_by_an_mnli_model(teacher, of_another_order, entailments, machine, tmp_path):
    """AX.tsv with label names, and the labelled file's Matthews correlation, whatever the model's order of labels."""
    ax, rng, words = TASKS["ax"], np.random.default_rng(2), [*SAYS, *SAYS]
    rows = pairs(rng, words)
    write(tmp_path / "AX.tsv", rows, None, "Label")
    meant = [SAYS[word] for word in words]
    meant[0] = "neutral" if meant[0] != "neutral" else "entailment"
    lines = ["Lexical Semantics\tPredicate-Argument Structure\tLogic\tKnowledge\tDomain\tPremise\tHypothesis\tLabel"]
    lines += ["\t".join(["", "", "", "", "News", *row, label]) for row, label in zip(rows, meant, strict=True)]
    (tmp_path / "diagnostic-full.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for i, model in enumerate((teacher, of_another_order)):
        (path,) = predict_test(model, ax, tmp_path, tmp_path / f"out {i}", machine)
        assert path == str(tmp_path / f"out {i}" / "AX.tsv")
        assert Path(path).read_text() == "index\tprediction\n" + "".join(f"{i}\t{SAYS[word]}\n" for i, word in enumerate(words))
        # one of six is wrong: by hand from the table of both, (c·s − Σ p·t) / √((s² − Σ p²)(s² − Σ t²)) with c = 5, s = 6
        matthews = (5 * 6 - (2 * 1 + 2 * 3 + 2 * 2)) / np.sqrt((36 - 12) * (36 - 14))
        assert evaluate(model, ax, tmp_path, machine) == {"dev": {"matthews_correlation": pytest.approx(matthews)}}


def test_a_teacher_of_another_order_says_and_teaches_the_same(teacher, of_another_order, entailments, machine, tmp_path):
    assert evaluate(of_another_order, MNLI, entailments, machine) == evaluate(teacher, MNLI, entailments, machine)
    results = []
    for i, path in enumerate((teacher, of_another_order)):
        more = {"intermediate": SHORT, "prediction": SHORT, "max_length": 16}
        results.append(distill_task(path, "1L-8D-2H-16F", MNLI, entailments, tmp_path / str(i), machine, **more))
    first, second = (Bert.load(tmp_path / name) for name in "01")
    assert results[0] == results[1] and first.config == second.config
    assert first.config.id2label == dict(enumerate(MNLI.labels))
    np.testing.assert_array_equal(first.parameters.flat, second.parameters.flat)


# ----------------------------------------------------------------------------------------------------------- what one starts from


def test_a_student_of_its_teachers_layers(teacher, entailments, machine, tmp_path):
    none = Options(epochs=1e-9, batch_size=16, lr=1e-12)
    distill_task(teacher, "teacher:2", MNLI, entailments, tmp_path / "out", machine, intermediate=none, prediction=none, max_length=16)
    student, own = Bert.load(tmp_path / "out"), Bert.load(teacher)
    name = "bert.encoder.layer.{}.attention.self.query.weight"
    np.testing.assert_allclose(student.parameters[name.format(0)], own.parameters[name.format(1)], atol=1e-8)
    assert student.config.num_hidden_layers == 1


def test_the_grid_keeps_what_is_best_on_dev(teacher, entailments, machine, tmp_path, monkeypatch):
    monkeypatch.setattr(task_command, "GRID", {"batch_size": (16, 32), "lr": (1e-6, 1e-2)})
    more = {"intermediate": SHORT, "prediction": LONG, "max_length": 16, "grid": True}
    results = distill_task(teacher, "1L-16D-2H-24F", MNLI, entailments, tmp_path / "out", machine, keep_state=True, **more)
    found = json.loads((tmp_path / "out/grid.json").read_text())
    assert [(choice["batch_size"], choice["lr"]) for choice in found] == [(16, 1e-6), (16, 1e-2), (32, 1e-6), (32, 1e-2)]
    kept = next(choice for choice in found if choice["kept"])
    assert kept["accuracy"] == max(choice["accuracy"] for choice in found) > min(choice["accuracy"] for choice in found)
    assert np.mean([results[split]["accuracy"] for split in MNLI.dev_splits]) == kept["accuracy"]
    saved, of_grid = ((tmp_path / "out" / place / "model.safetensors").read_bytes() for place in (".", f"grid/{kept['place']}"))
    assert saved == of_grid
    rates = [json.loads(line).get("lr", 0) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert 0 < max(rates) <= kept["lr"]
    metrics = tmp_path / "out/grid/batch-16-lr-1e-06/metrics.jsonl"
    written = metrics.read_bytes()
    for _ in range(2):  # with the models of the grid, and when they are gone
        assert distill_task(teacher, "1L-16D-2H-24F", MNLI, entailments, tmp_path / "out", machine, **more, resume=True) == results
        assert metrics.read_bytes() == written  # its seconds too: nothing is trained again
        assert sorted(path.name for path in metrics.parent.iterdir()) == ["metrics.jsonl", "run.json"]
        assert json.loads((tmp_path / "out/grid.json").read_text()) == found
    assert (tmp_path / "out/model.safetensors").read_bytes() == saved


def test_the_control_is_fine_tuned_from_random_weights(model, entailments, machine, tmp_path):
    with pytest.raises(InputError, match="needs? a vocabulary"):
        finetune("1L-8D-2H-16F", MNLI, entailments, tmp_path / "out", SHORT, machine, 16)
    results = finetune("2L-16D-2H-24F", MNLI, entailments, tmp_path / "out", replace(LONG, epochs=30), machine, 16, tokenizer=Path(model))
    assert results["dev_matched"]["accuracy"] > 0.6 and Bert.load(tmp_path / "out").config.shape == "2L-16D-2H-24F"
    with pytest.raises(InputError, match="leave --tokenizer out"):
        finetune(model, MNLI, entailments, tmp_path / "other", SHORT, machine, 16, tokenizer=Path(model))


# ------------------------------------------------------------------------------------------------------------ what is refused


def files_of(path, task, data):
    model = Bert.load(path)
    return TaskData(task, data, Tokenizer.load(model.tokenizer_files), 16, model)


def test_a_good_teacher_passes_and_is_told_of(teacher, of_another_order, scorer, entailments, scores, machine, capsys):
    for path, task, data in ((teacher, MNLI, entailments), (of_another_order, MNLI, entailments), (scorer, STS_B, scores)):
        found = check_teacher(path, load_teacher(path, task, machine), files_of(path, task, data), machine)
        assert found == evaluate(path, task, data, machine)[task.dev_splits[0]]
        assert f"teacher {path} on dev: {task.main_metric} {found[task.main_metric]:.4f}" in capsys.readouterr().err


def most_frequent(data):
    return int(np.bincount(read_split(MNLI, data, "dev_matched").labels).argmax())


def test_a_teacher_no_better_than_a_constant_is_refused(teacher, scorer, entailments, scores, machine, tmp_path):
    constant = lambda tensor: np.eye(3, dtype=np.float32)[most_frequent(entailments)] if tensor.ndim == 1 else 0 * tensor
    for name, source, task, data, change in (
        ("rows in another order", teacher, MNLI, entailments, lambda tensor: tensor[[1, 2, 0]]),
        ("one answer", teacher, MNLI, entailments, constant),
        ("the other way round", scorer, STS_B, scores, lambda tensor: -tensor),
        ("one number", scorer, STS_B, scores, lambda tensor: 0 * tensor),
        ("hardly moves", scorer, STS_B, scores, lambda tensor: tensor / 200 + (3.6 if tensor.ndim == 1 else 0)),
    ):
        bad = changed(source, tmp_path / name, change)
        why = r"answers 3\.6. ± 0\.01 to labels .* err by" if name == "hardly moves" else f"{task.main_metric} is .*, that of"
        with pytest.raises(InputError, match=f"{name}: the teacher's dev {why}.* a constant answer "):
            check_teacher(bad, load_teacher(bad, task, machine), files_of(bad, task, data), machine)
        with pytest.raises(InputError, match="a constant answer"):
            distill_task(bad, "1L-8D-2H-16F", task, data, tmp_path / "out", machine, max_length=16)
    assert not (tmp_path / "out").exists()


def test_a_student_that_knows_nothing_is_named(teacher, scorer, entailments, scores, machine, tmp_path, capsys):
    evaluate(teacher, MNLI, entailments, machine, 16)
    assert "warning" not in capsys.readouterr().err
    bad = changed(scorer, tmp_path / "collapsed", lambda tensor: 0 * tensor)
    assert evaluate(bad, STS_B, scores, machine, 16)["dev"]["pearson"] == 0
    assert "collapsed is no better than a constant answer on dev: pearson is 0.0000" in capsys.readouterr().err


def test_a_fresh_head_for_numbers_starts_at_their_mean(model, scores, machine, tmp_path):
    options = Options(epochs=1e-9, batch_size=8, lr=1e-9)
    finetune(model, STS_B, scores, tmp_path / "out", options, machine, 16)
    mean = read_split(STS_B, scores, "train").labels.mean()
    assert mean > 1 and Bert.load(tmp_path / "out").parameters["classifier.bias"] == pytest.approx(mean, rel=1e-5)


def test_a_student_of_another_vocabulary_is_refused(teacher, entailments, machine, tmp_path):
    for name, words in (("turned", (*OTHERS, *SCALE)), ("shorter", (*SCALE, *OTHERS[:-1]))):
        student = new_model(tmp_path / name, words=words)
        with pytest.raises(InputError, match="vocabular"):
            distill_task(teacher, student, MNLI, entailments, tmp_path / "out", machine, max_length=16)
    assert not (tmp_path / "out").exists()


def test_pairs_for_a_model_without_a_second_segment(model, entailments, machine, tmp_path):
    single = new_model(tmp_path / "model", type_vocab_size=1)
    two, one = (files_of(path, MNLI, entailments).split("dev_matched") for path in (model, single))
    assert all((a == b).all() for a, b in zip(one.input_ids, two.input_ids, strict=True))
    assert all(types.any() for types in two.token_type_ids) and not any(types.any() for types in one.token_type_ids)
    results = finetune(single, MNLI, entailments, tmp_path / "teacher", LONG, machine)
    assert results["dev_matched"]["accuracy"] > 0.9
    more = {"intermediate": SHORT, "prediction": SHORT, "max_length": 16}
    results = distill_task(str(tmp_path / "teacher"), "1L-8D-2H-16F", MNLI, entailments, tmp_path / "student", machine, **more)
    assert Bert.load(tmp_path / "student").config.type_vocab_size == 1 and list(results) == ["dev_matched", "dev_mismatched"]
    assert predict(str(tmp_path / "teacher"), ["the film ||| is good"], machine)[0]["label"] == "entailment"


def test_few_steps_are_told_of_and_many_are_not(capsys):
    files = SimpleNamespace(split=lambda _: range(320))
    for epochs, told in ((49.9, "warning: 998 steps in all"), (50, "")):
        options = Options(epochs=epochs, batch_size=32, lr=1e-3)
        task_command._tell_of_few([(options, files), (options, files)])
        err = capsys.readouterr().err
        assert err.startswith(told) and bool(err) == bool(told)
