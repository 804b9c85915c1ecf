"""The commands as functions: the command line's options and results, in the words of a function."""

import ast
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from commands.test_cli import data, model, run  # noqa: F401  (fixtures)

import minitinybert
from minitinybert import Bert, Config, InputError, Scores, Trace
from minitinybert.commands import keywords
from minitinybert.errors import NO_VALUES, as_function
from minitinybert.training.step import step

PACKAGE = Path(minitinybert.__file__).parent
FUNCTIONS = {
    "finetune": "finetune",
    "pretrain": "pretrain",
    "distill_general": "distill general",
    "distill_task": "distill task",
    "augment": "augment",
    "evaluate": "evaluate",
    "predict": "predict",
    "info": "info",
}


@pytest.fixture(scope="module")
def teacher(model, data, tmp_path_factory):  # noqa: F811
    out = tmp_path_factory.mktemp("api") / "teacher"
    return minitinybert.finetune(model=Path(model), task="sst-2", data=data, out=out, epochs=12, lr=3e-3)


@pytest.mark.parametrize(("name", "command"), FUNCTIONS.items())
def test_keywords_are_the_command_s_options_with_its_defaults(name, command):
    """Defaults stand in the signatures for whoever reads them; the command line's are what counts."""
    parameters = inspect.signature(getattr(minitinybert, name)).parameters
    known = keywords.defaults(command.split())
    assert set(parameters) == set(known)
    for option, default in known.items():
        given = parameters[option].default
        if given is not inspect.Parameter.empty:
            assert given == (default or None if isinstance(default, list) else default), option
    assert f"\n{option}: " in inspect.getdoc(getattr(minitinybert, name))


def test_a_function_returns_what_its_command_prints(capsys, teacher, model, data, tmp_path):  # noqa: F811
    assert isinstance(teacher, Scores) and teacher.results["dev"]["accuracy"] > 0.9
    task = ("--task", "sst-2", "--data", data)
    for split in ("dev", "train"):
        result = minitinybert.evaluate(model=teacher.model, task="sst-2", data=Path(data), split=[split])
        status, out, _ = run(capsys, "evaluate", "--model", teacher.model, *task, "--split", split, "--json")
        assert status == 0 and json.loads(out) == asdict(result) and list(result.results) == [split]
        _, out, _ = run(capsys, "evaluate", "--model", teacher.model, *task, "--split", split)
        assert out == f"{result}\n" == f"{result!r}\n"
    said = minitinybert.predict(model=teacher.model, text=["good film", "--bad plot"])
    _, out, _ = run(capsys, "predict", "--model", teacher.model, "--json", "--", "good film", "--bad plot")
    assert json.loads(out) == said.answers and [answer["label"] for answer in said.answers] == ["positive", "negative"]
    cost = minitinybert.info(teacher.model, length=20)
    _, out, _ = run(capsys, "info", teacher.model, "--length", 20, "--json")
    assert json.loads(out) == dict(cost) and "FLOPs at 20 tokens" in repr(cost)


def test_a_student_by_functions_alone(teacher, data, tmp_path):  # noqa: F811
    """The same bits as by the command line, which test_cli.py goes through."""
    options = {"student": "1L-8D-2H-16F", "task": "sst-2", "data": data, "intermediate_epochs": 2, "epochs": 2, "seed": 1}
    changed = {"set": {"temperature": 2.0, "padding_gradient": False, "layers": "top"}, "recipe": "paper"}
    student = minitinybert.distill_task(teacher=teacher.model, out=tmp_path / "student", **options, **changed)
    command = [f"--{name.replace('_', '-')}={value}" for name, value in {"teacher": teacher.model, **options}.items()]
    command += ["--recipe=paper", "--set", "temperature=2", "--set", "padding_gradient=false", "--set", "layers=top"]
    from minitinybert.commands.cli import main

    assert main(["distill", "task", *command, "--out", str(tmp_path / "same")]) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("student", "same")]
    assert weights[0] == weights[1] and student.model == str(tmp_path / "student")
    first = minitinybert.distill_task(teacher=teacher.model, out=tmp_path / "first", stage="intermediate", **options)
    assert first.model == str(tmp_path / "first" / "intermediate") and first.results == {} and "nothing judged" in repr(first)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"lr": 0}, "lr=0.0: a number above 0 is needed"),
        ({"lr": "x"}, "lr=x: invalid float value: 'x'"),
        ({"batch_size": 2.5}, "batch_size=2.5: 2.5 is not a whole number above 0"),
        ({"resume": 1}, "resume=1: True or False is needed"),
        ({"optimizer": "sgd"}, "optimizer=sgd: invalid choice: 'sgd'"),
        ({"max_length": 999}, "max_length=999: a number from 3 to the model's 128 positions"),
        ({"device": "tpu"}, "device=tpu: choose cpu, cuda or cuda:N"),
        ({"tf32": True}, "tf32=True is a way of GPUs to multiply: choose device=cuda, or leave it out"),
        ({"recipe": "mine"}, "recipe=mine: choose one of"),
        ({"set": {"temperature": "warm"}}, "set: temperature is 'warm'; a float is needed"),
        ({"task": "custom"}, "task=custom needs text_columns= and label_column="),
        ({"task": "tokens", "drop_unlabelled": True}, "task=tokens: drop_unlabelled=True is of tasks"),
        ({"data": "nowhere"}, "nowhere: no such file or directory; data= is the directory"),
        ({"model": "2L-8D-2H-16F"}, "model=2L-8D-2H-16F: random weights need a vocabulary; give tokenizer=DIR ("),
        ({"model": "2L-8D-2H-16F"}, "(pretrain makes one: train_vocabulary=N)"),
        ({"labels": ["a,b", "c"]}, "labels='a,b': has a comma"),
        ({"out": "{data}"}, "out={data}: is what is read from too"),
        ({"out": "{teacher}"}, "choose a new out=, or go on with resume=True"),
    ],
)  # fmt: skip
def test_errors_are_in_the_words_of_a_function(model, data, teacher, tmp_path, given, says):  # noqa: F811
    places = {"data": data, "teacher": teacher.model}
    given = {name: value.format(**places) if isinstance(value, str) else value for name, value in given.items()}
    with pytest.raises(InputError) as error:
        minitinybert.finetune(**{"model": model, "task": "sst-2", "data": data, "out": tmp_path / "out", **given})
    assert says.format(**places) in str(error.value) and "--" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_what_excludes_another_option_is_told_so(model, tmp_path):  # noqa: F811
    given = {"model": "1L-8D-2H-16F", "corpus": [tmp_path / "corpus"], "out": tmp_path / "out", "tokenizer": model}
    with pytest.raises(InputError, match=r"^train_vocabulary=100: not allowed with argument tokenizer=$"):
        minitinybert.pretrain(**given, train_vocabulary=100)


def test_a_thread_s_error_and_other_programs_options():
    known = {"lr": False, "resume": True}
    with pytest.raises(InputError) as error, as_function(known), ThreadPoolExecutor(1) as pool:
        pool.submit(_fails, "a smaller --lr, --resume; pip install --force-reinstall cupy; see --lr's").result()
    assert str(error.value) == "a smaller lr=, resume=True; pip install --force-reinstall cupy; see lr='s"
    assert str(InputError("a smaller --lr")) == "a smaller --lr"


def _fails(message):
    raise InputError(message)


def test_no_word_of_a_message_is_taken_for_an_option_s_value():
    """After an option comes its value, or one of NO_VALUES, which every message of the package keeps to."""
    values = {"cpu", "cuda", "custom", "tokens", "squad", "sst-2", "all"}
    wrong, found = [], 0
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "--" not in source or path.name == "arguments.py":  # whose texts are the command line's alone
            continue
        nodes = list(ast.walk(ast.parse(source)))
        documentation = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if id(node) in documentation:
                continue
            parts = node.values if isinstance(node, ast.JoinedStr) else [node] if isinstance(node, ast.Constant) else []
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in parts)
            for option, word in re.findall(r"--([a-z][a-z0-9-]*) ([a-z][a-z0-9-]*)", text):
                found += 1
                if option in keywords.options() and word not in {*NO_VALUES.split(), *values}:
                    wrong.append(f"{path.name}: --{option} {word}")
    assert found > 20 and not wrong


def test_a_run_that_is_stopped_raises_what_the_signal_would(monkeypatch, model, data, tmp_path, capsys):  # noqa: F811
    from minitinybert.training import shares

    given = {"model": model, "task": "sst-2", "data": data, "out": tmp_path / "out", "epochs": 2, "threads": 1}
    taken = []

    def stopping(*arguments, **more):
        taken.append(1)
        if len(taken) == 3:
            os.kill(os.getpid(), number)
        return step(*arguments, **more)

    monkeypatch.setattr(shares, "step", stopping)
    number, heard = signal.SIGINT, []
    with pytest.raises(KeyboardInterrupt, match=r"^stopped after step 3; the same call with resume=True goes on from there$"):
        minitinybert.finetune(**given)
    taken.clear()
    number, before = signal.SIGTERM, signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
    try:
        with pytest.raises(KeyboardInterrupt, match="stopped after step 6"):
            minitinybert.finetune(**given, resume=True)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == ["SIGTERM"]
    monkeypatch.undo()
    assert minitinybert.finetune(**given, resume=True).model == str(tmp_path / "out")


# ----------------------------------------------------------------------------------------------------------------- a notebook

STATE = """
import importlib, logging, os, pkgutil, random, signal, sys, threading, warnings
import numpy as np

def state():
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}}
    log = (logging.root.level, list(logging.root.handlers), logging.root.manager.disable)
    chance = (random.getstate(), np.random.get_state()[1].tolist())
    hooks = (sys.excepthook, sys.displayhook, threading.excepthook, warnings.showwarning)
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return {"environment": dict(os.environ), "filters": list(warnings.filters), "NumPy's errors": np.geterr(), "printing":
            np.get_printoptions(), "handlers": handlers, "log": log, "chance": chance, "hooks": hooks, "streams": streams,
            "threads": threading.active_count(), "directory": os.getcwd(), "recursion": sys.getrecursionlimit()}

before = state()
import minitinybert
for name in minitinybert.__all__:
    getattr(minitinybert, name)
for module in pkgutil.walk_packages(minitinybert.__path__, "minitinybert."):
    if not module.name.startswith(("minitinybert.kernels.", "minitinybert.__main__")):  # numba's, CuPy's; what runs
        importlib.import_module(module.name)
after = state()
print([name for name in before if before[name] != after[name]] + ["pyplot"] * ("matplotlib.pyplot" in sys.modules))
"""


def test_importing_changes_nothing_of_the_process():
    done = subprocess.run([sys.executable, "-c", STATE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]" and done.stderr == ""


def test_what_a_notebook_shows(model):  # noqa: F811
    config = Config(vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, head="classifier")
    bert = Bert.new(config)
    trace, _ = bert.forward(np.ones((2, 5), np.int64))
    assert eval(repr(config)) == config and repr(Config()) == "Config()"
    assert repr(bert) == "Bert(2L-8D-2H-16F, head classifier of 2 labels, 5,658 parameters, float32 in numpy)"
    shapes = "Trace(embedding (2, 5, 8), hidden 3 × (2, 5, 8), scores 2 × (2, 2, 5, 5), pooled (2, 8), logits (2, 2))"
    assert repr(trace) == shapes and repr(Trace()) == "Trace()"
    assert repr(Trace(hidden=[None, np.ones((3, 4))])) == "Trace(hidden 1 × (3, 4))"
    assert "41 tensors, 5,658 numbers" in repr(bert.parameters)


def test_a_type_checker_sees_types(tmp_path):
    """What a user's own file is told, by mypy as it comes: no Any."""
    api = pytest.importorskip("mypy.api", reason="mypy is not installed: pip install -e '.[dev]'")
    user = tmp_path / "user.py"
    user.write_text(
        "import minitinybert as m\n"
        "reveal_type(m.finetune(model='a', task='sst-2', data='b', out='c', labels=['x', 'y']))\n"
        "reveal_type(m.evaluate(model='a', task='sst-2', data='b').results['dev']['accuracy'])\n"
        "reveal_type(m.augment(mlm='a', vectors='b', task='c', data='d', out='e').rows)\n"
        "reveal_type(m.predict(model='a', text='b').files)\n"
        "reveal_type(m.Classifier('a')([('b', 'c')])[0].probability)\n"
        "reveal_type(m.Classifier('a').trace('b'))\n"
        "reveal_type(m.load('a').config.hidden_size)\n"
        "m.finetune(model='a', task='sst-2', data='b', out='c', epochs='three')\n"
        "m.finetune(model='a')\n",
        encoding="utf-8",
    )
    told, errors, status = api.run([str(user), "--strict", "--config-file=", f"--cache-dir={tmp_path}"])
    types = re.findall(r'Revealed type is "(.*)"', told)
    assert [name.replace("builtins.", "") for name in types] == [
        "minitinybert.commands.results.Scores", "float", "int", "list[str]", "float | None", "minitinybert.model.trace.Trace", "int",
    ], told + errors  # fmt: skip
    assert status == 1 and 'incompatible type "str"; expected "float"' in told and "Missing named argument" in told
