"""What a run leaves: what one shares, and nothing that only --resume needs; --resume still knows that there is nothing to do."""

import json
import os
import shutil
import signal

import pytest
from faults.commands import COMMANDS, make_inputs, tree

from minitinybert.commands.clean import clean
from minitinybert.commands.cli import main
from minitinybert.errors import InputError
from minitinybert.training.left import drop, ended, note_end, superfluous

SHARED = {"config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json"}
SHARED |= {"README.md", "task.json", "metrics.jsonl", "run.json"}
MODEL = ["finetune", "distill-task", "distill-general", "pretrain"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("inputs") / "inputs"
    make_inputs(directory)
    return directory


@pytest.fixture(scope="module")
def runs(inputs, tmp_path_factory):
    """{command: (its line, the directory with `out`)} of runs that have ended."""
    found, before = {}, os.getcwd()
    for name in MODEL:
        place = tmp_path_factory.mktemp(name)
        os.chdir(place)
        assert main(COMMANDS[name].line(inputs)) == 0
        found[name] = place
    os.chdir(before)
    return found


@pytest.mark.parametrize("name", MODEL)
def test_only_what_one_shares_is_left(runs, name):
    out = runs[name] / "out"
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    of_step = {f"intermediate/{file}" for file in ("metrics.jsonl", "run.json", "maps.safetensors")} if name == "distill-task" else set()
    vocabulary = {file for file in files if file.startswith("tokenizer/")} if name == "pretrain" else set()
    assert files - of_step - vocabulary <= SHARED and of_step <= files and not (out / "checkpoint").exists()
    weights = (out / "model.safetensors").stat().st_size
    assert sum((out / file).stat().st_size for file in files) < 1.3 * weights + 40_000


@pytest.mark.parametrize("name", MODEL)
def test_resume_says_that_there_is_nothing_to_do(runs, inputs, tmp_path, monkeypatch, capsys, name):
    shutil.copytree(runs[name], tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    before = tree(tmp_path)
    line = COMMANDS[name].line(inputs, again=True)
    assert main(line) == 0
    assert "out: nothing to do, the run has ended at step" in capsys.readouterr().err
    assert tree(tmp_path) == before
    epochs = line.index("--epochs") + 1
    assert main([*line[:epochs], "7", *line[epochs + 1 :]]) == 2
    assert f"run.json: --resume needs the same epochs: {float(line[epochs])} when the run began, 7.0 now" in capsys.readouterr().err
    assert main(COMMANDS[name].line(inputs)) == 2 and "holds a run already" in capsys.readouterr().err


def test_the_state_stays_where_asked_and_clean_drops_it(runs, inputs, tmp_path, monkeypatch, capsys):
    for name in ("distill-task", "pretrain"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        line = COMMANDS[name].line(inputs)
        assert main([*line, "--keep-state"]) == 0
        assert (tmp_path / name / "out/checkpoint/last.safetensors").exists()
    assert (tmp_path / "distill-task/out/intermediate/model.safetensors").exists()
    assert (tmp_path / "pretrain/out/checkpoint/corpus").exists()
    before = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    capsys.readouterr()
    assert main(["clean", str(tmp_path), "--json"]) == 0
    freed = json.loads(capsys.readouterr().out)
    assert before - sum(freed.values()) == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    for name in ("distill-task", "pretrain"):
        assert tree(tmp_path / name) == tree(runs[name])
    assert main(["clean", str(tmp_path)]) == 0 and "nothing to remove" in capsys.readouterr().err


def test_a_run_that_has_not_ended_keeps_its_state(runs, inputs, tmp_path, monkeypatch, capsys):
    from minitinybert.training import loop

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "judge", lambda self: os.kill(os.getpid(), signal.SIGTERM))
        assert main(COMMANDS["finetune"].line(inputs)) == 128 + signal.SIGTERM
    assert ended(tmp_path / "out") is None and drop(tmp_path / "out") == 0
    assert clean([tmp_path]) == {} and "has not ended; its state stays" in capsys.readouterr().err
    assert (tmp_path / "out/checkpoint/last.safetensors").exists()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_process_killed_while_it_drops_is_gone_on_with(runs, inputs, tmp_path, monkeypatch, count):
    """After so many things have gone, of the state and of the model on the way."""
    monkeypatch.chdir(tmp_path)
    assert main([*COMMANDS["distill-task"].line(inputs), "--keep-state"]) == 0
    for path in list(superfluous(tmp_path / "out"))[:count]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert main(COMMANDS["distill-task"].line(inputs, again=True)) == 0
    assert tree(tmp_path) == tree(runs["distill-task"])


def test_clean_refuses_what_is_in_use_or_none_of_ours(runs, tmp_path):
    from minitinybert.claims import claimed

    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no run of minitinybert in it"):
        clean([tmp_path / "empty"])
    with pytest.raises(InputError, match="nowhere: no such directory"):
        clean([tmp_path / "nowhere"])
    with claimed(runs["finetune"] / "out"), pytest.raises(InputError, match="another run"):
        clean([runs["finetune"] / "out"])
    with claimed(runs["finetune"] / "out"), pytest.raises(InputError, match="another run"):
        clean([runs["finetune"]])
    with claimed(runs["distill-task"] / "out"), pytest.raises(InputError, match="another run writes in"):
        clean([runs["distill-task"] / "out" / "intermediate"])


DAMAGED = ["[]", "{", '{"step": 1}', '{"step": true, "settings": {}, "best": null}', '{"step": 1, "settings": [], "best": 1}']


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_end_is_one_line(tmp_path, content):
    note_end(tmp_path, {"seed": 0}, 3, None)
    assert ended(tmp_path) == {"step": 3, "best": None, "settings": {"seed": 0}}
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json"):
        ended(tmp_path)
