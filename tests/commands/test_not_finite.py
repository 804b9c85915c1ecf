"""No command says, or saves, what is not a finite number: NaN and infinity end in one line and exit status 2."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from commands.test_classifiers import data, refused, run, saved  # noqa: F401  (a fixture among them)
from minitinybert import weights
from minitinybert.model.bert import Bert

ONE_STEP = ("--epochs", 1, "--batch-size", 64, "--warmup", 0, "--max-length", 16, "--threads", 1)
SST = ("--task", "sst-2", "--data", "{data}")
SHAPE = "1L-8D-2H-8F"
TRAINING = {
    "finetune": ("finetune", "--model", "{body}", *SST, "--lr", "{lr}", *ONE_STEP),
    "pretrain": ("pretrain", "--model", "{body}", "--corpus", "{corpus}", "--lr", "{lr}", *ONE_STEP),
    "distill general": ("distill", "general", "--teacher", "{body}", "--student", SHAPE, "--corpus", "{corpus}", "--lr", "{lr}", *ONE_STEP),
    "distill intermediate": (
        "distill", "task", "--stage", "intermediate", "--teacher", "{teacher}", "--student", SHAPE, *SST, "--intermediate-epochs", 1,
        "--intermediate-lr", "{lr}", *ONE_STEP,
    ),
    "distill prediction": (
        "distill", "task", "--stage", "prediction", "--teacher", "{teacher}", "--student", SHAPE, *SST, "--lr", "{lr}", *ONE_STEP,
    ),
    "ablate": (
        "ablate", "--teacher", "{teacher}", "--student", SHAPE, *SST, "--variants", "full", "--seeds", 0, "--intermediate-epochs", 1,
        "--intermediate-lr", "{lr}", *ONE_STEP,
    ),
}  # fmt: skip


@pytest.fixture
def places(tmp_path, data):  # noqa: F811
    body = saved(tmp_path / "body", (0.0, 0.0), head="none")
    teacher = saved(tmp_path / "teacher", (0.0, 1.0), names=["0", "1"])
    model = Bert.load(teacher)  # to be one that is right: it tells the two sentences of the data apart
    bad, good = (model.forward(np.array([[2, 9, 7, 11, word, 3]]))[0].pooled[0] for word in (6, 5))
    w = (bad - good) / ((bad - good) ** 2).sum()
    model.parameters["classifier.weight"][...] = [w, -w]
    model.parameters["classifier.bias"][...] = np.array([-1, 1]) * (w @ (bad + good) / 2)
    model.save(teacher)
    return {"body": body, "teacher": teacher, "data": data, "corpus": tmp_path / "corpus.txt", "out": tmp_path / "out"}


def of(places, arguments, **more):
    return [str(a).format(**places, **more) for a in arguments]


@pytest.mark.parametrize("arguments", TRAINING.values(), ids=TRAINING)
def test_the_commands_train_with_a_rate_that_is_one(capsys, places, arguments):
    status, _, err = run(capsys, *of(places, arguments, lr="1e-4"), "--out", places["out"])
    assert status == 0, err


@pytest.mark.parametrize("lr", ["1e12", "1e38", "1e39"])  # weights that are finite and give nothing finite; infinities
@pytest.mark.parametrize("arguments", TRAINING.values(), ids=TRAINING)
def test_no_command_saves_a_model_that_says_nothing(capsys, places, arguments, lr):
    """One step, whose loss is that of the weights before it: no loss gives the weights away."""
    status, out, err = run(capsys, *of(places, arguments, lr=lr), "--out", places["out"], "--json")
    assert refused(status, err, "not finite (NaN, infinity)") and out == ""
    assert not list(places["out"].rglob("model.safetensors"))
    for state in places["out"].rglob("*.safetensors"):
        assert all(np.isfinite(values).all() for values in load_file(state).values())
    for file in [*places["out"].rglob("*.json"), *places["out"].rglob("*.jsonl")]:
        for line in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
            json.loads(line, parse_constant=pytest.fail)


def broken(places, name="overflow", **tensors):
    """The teacher with other tensors, in a directory that its own `save` would not write."""
    checkpoint = weights.read(places["teacher"])
    path = places["out"].parent / name
    held = {**checkpoint.tensors, **{key.replace("__", "."): values for key, values in tensors.items()}}
    weights.write(path, checkpoint.config, held, checkpoint.tokenizer_files)
    return path


def overflowing(places):
    """All weights are finite, the logits are 3e38 · 2."""
    matrix = np.full((8, 8), 3e38, np.float32)
    return broken(places, classifier__weight=matrix[:2], bert__pooler__dense__weight=matrix, bert__pooler__dense__bias=matrix[0])


ASKING = {
    "evaluate": ("evaluate", "--model", "{bad}", *SST, "--max-length", 16),
    "predict": ("predict", "--model", "{bad}", "--max-length", 16, "--json", "the film is good"),
    "distill task": ("distill", "task", "--teacher", "{bad}", "--student", SHAPE, *SST, "--out", "{out}", *ONE_STEP),
    "ablate": ("ablate", "--teacher", "{bad}", "--student", SHAPE, *SST, "--out", "{out}", *ONE_STEP),
    "convert": ("convert", "{bad}", "{out}"),
}


@pytest.mark.parametrize("arguments", ASKING.values(), ids=ASKING)
def test_logits_are_looked_at_before_an_arg_max(capsys, places, arguments):
    """NaN is the largest to NumPy's argmax: class 0, and right one time of ten here."""
    status, out, err = run(capsys, *of(places, arguments, bad=overflowing(places)))
    assert refused(status, err, "not finite (NaN, infinity)") and out == ""
    assert not list(places["out"].rglob("model.safetensors"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("arguments", [*ASKING.values(), *TRAINING.values()], ids=[*ASKING, *TRAINING])
def test_weights_that_are_not_finite_are_refused_by_name(capsys, places, arguments, value):
    table = weights.read(places["teacher"]).tensors["bert.embeddings.word_embeddings.weight"].copy()
    table[3, 2] = value
    bad = broken(places, "bad", bert__embeddings__word_embeddings__weight=table)
    more = ("--out", places["out"]) if arguments in TRAINING.values() else ()
    status, out, err = run(capsys, *of({**places, "teacher": bad, "body": bad}, arguments, bad=bad, lr="1e-4"), *more)
    assert refused(status, err, "tensor bert.embeddings.word_embeddings.weight has 1 numbers of 96 that are not finite") and out == ""
    assert not list(places["out"].rglob("model.safetensors"))


@pytest.mark.parametrize("part", ["parameters", "m", "v"])
def test_a_checkpoint_to_go_on_from_is_finite(capsys, places, part):
    command = of(places, TRAINING["finetune"], lr="1e-4")
    assert run(capsys, *command, "--out", places["out"], "--keep-state")[0] == 0
    path = places["out"] / "checkpoint" / "last.safetensors"
    state = load_file(path)
    name = f"{part}/bert.encoder.layer.0.output.dense.bias"
    state[name][0] = np.nan
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    save_file(state, path, metadata)
    status, _, err = run(capsys, *command, "--out", places["out"], "--resume")
    assert refused(status, err, "tensor bert.encoder.layer.0.output.dense.bias has numbers that are not finite")
