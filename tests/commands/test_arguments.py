"""What the command line says of itself: every option with its default, examples that are right, 80 columns, completion."""

import argparse
import re
import shlex
import subprocess
import sys

import pytest

from minitinybert import __version__
from minitinybert.commands.arguments import _all, build_parser
from minitinybert.commands.cli import main


def leaves():
    groups = lambda parser: any(isinstance(action, argparse._SubParsersAction) for action in parser._actions)
    return [parser for parser in _all(build_parser()) if not groups(parser)]


# Options whose absence is no value of theirs: nothing is done then.
ABSENT = {
    *("tokenizer", "train_vocabulary", "text_columns", "label_column", "prediction_data", "augmented", "general_teacher", "teacher"),
    *("corpus", "task", "data", "out", "file", "set", "split", "text"),
}


@pytest.mark.parametrize("parser", leaves(), ids=lambda parser: parser.prog)
def test_every_option_is_explained_and_its_default_told(parser, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    text = re.sub(r"\s+", " ", parser.format_help())
    for action in parser._actions:
        assert action.help, action.dest
        if action.required or action.nargs == 0 or action.dest in ABSENT:
            continue
        if action.default is None:
            assert "(without it: " in action.help, f"{parser.prog} --{action.dest}: what holds without it?"
        else:
            assert f"(default: {action.default})" in text.split(action.help)[1][:60], f"{parser.prog} --{action.dest}"


@pytest.mark.parametrize("parser", leaves(), ids=lambda parser: parser.prog)
def test_an_example_that_the_parser_takes(parser):
    head, _, example = parser.epilog.partition("\n")
    command, *arguments = shlex.split(example.replace("\\\n", " "))
    assert head == "example:" and command == "minitinybert"
    namespace = build_parser().parse_args(arguments)
    assert parser.prog.split()[1:] == [namespace.command, *([namespace.what] if "what" in namespace else [])]


@pytest.mark.parametrize("parser", list(_all(build_parser())), ids=lambda parser: parser.prog)
def test_help_fits_80_columns(parser, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, parser.format_help().splitlines())) <= 80


def test_options_stand_in_groups_and_their_order():
    finetune = next(parser for parser in leaves() if parser.prog.endswith("finetune"))
    titles = [group.title for group in finetune._action_groups if group._group_actions]
    last = ["the task and its data", "--task squad, all in word pieces", "training", "the machine, and what is printed"]
    assert titles == ["options", *last]
    stand = [action.dest for group in finetune._action_groups for action in group._group_actions]
    assert sorted(stand) == sorted(action.dest for action in finetune._actions)  # each once


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"minitinybert {__version__}\n"


@pytest.fixture(scope="module")
def completion(tmp_path_factory):
    pytest.importorskip("shtab")
    done = subprocess.run([sys.executable, "-m", "minitinybert", "--print-completion", "bash"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path = tmp_path_factory.mktemp("completion") / "minitinybert"
    path.write_text(done.stdout, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["dist"], ["distill"]),
        (["distill", ""], ["general", "task"]),
        (["finetune", "--drop"], ["--drop-unlabelled"]),
        (["finetune", "--optimizer", "bert"], ["bert", "bert-adam"]),
        (["evaluate", "--model", "st"], ["student"]),
    ],
)
def test_bash_completes(completion, tmp_path, words, expected):
    """In bash itself: what is offered for the last word."""
    (tmp_path / "student").mkdir()
    line = " ".join(map(shlex.quote, ["minitinybert", *words]))
    code = f"""shopt -s progcomp; . {shlex.quote(str(completion))}
        COMP_WORDS=({line}); COMP_CWORD={len(words)}; COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}
        $(complete -p minitinybert | sed 's/.*-F \\([^ ]*\\) .*/\\1/') minitinybert {shlex.quote(words[-1])}
        printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == expected, done.stderr


def test_completion_for_a_shell_that_is_none(capsys):
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as end:
        main(["--print-completion", "sh"])
    assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1
