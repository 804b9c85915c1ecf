"""A function's keywords by the rules of its command's arguments: one source of types, choices and
defaults."""

from __future__ import annotations

import argparse
import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from ..errors import InputError, as_function, in_words
from ..files import json_text
from .arguments import build_parser


class _Usage(Exception):
    """What argparse has against some arguments."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Usage(message)


def parse(command: Sequence[str], keywords: Mapping[str, Any]) -> argparse.Namespace:
    """What the command line would make of the options `keywords`, by their names with underscores;
    None: not given. InputError where it would refuse them."""
    parser = _commands()[tuple(command)]
    arguments: list[str] = []
    places: list[str] = []
    for action in _actions(parser):
        value = keywords.get(action.dest)
        if value is not None:
            (arguments if action.option_strings else places).extend(_spelled(action, value))
    try:
        args = parser.parse_args([*arguments, "--", *places] if places else arguments)  # places may begin with a dash
    except _Usage as error:
        message = str(error)
        if name := re.match(r"argument --([\w-]+): ", message):
            given = _text(name[1], keywords[name[1].replace("-", "_")])
            message = f"--{name[1]} {given}: {message[name.end() :]}"
        raise InputError(message) from None
    args.command, args.what = command[0], command[-1]
    return args


def _spelled(action: argparse.Action, value: Any) -> list[str]:
    """A value as it is written on the command line."""
    option = action.option_strings[-1] if action.option_strings else ""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise InputError(f"{action.dest}={value!r:.60}: True or False is needed")
        return [option] * value
    name = option.removeprefix("--") or action.dest
    several = [value] if isinstance(value, (str, os.PathLike)) or not isinstance(value, Sequence) else list(value)
    if isinstance(value, Mapping):  # switches, as a TOML file has them
        return [f"{option}={key}={json_text(switch)}" for key, switch in value.items()]
    if action.nargs in ("+", "*"):
        return [*([option] if option else []), *(_text(name, one) for one in several)]
    if isinstance(action, argparse._AppendAction):
        return [f"{option}={_text(name, one)}" for one in several]
    return [f"{option}={_text(name, value)}" if option else _text(name, value)]


def _text(name: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        parts = [_text(name, part) for part in value]
        if bad := [part for part in parts if "," in part]:
            raise InputError(f"--{name} {bad[0]!r:.60}: has a comma, which stands between two")
        return ",".join(parts)
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def described(command: Sequence[str], names: Sequence[str]) -> str:
    """What --help says of some options of a command, a line each, in a function's words."""
    helps = {a.dest: a.help % {**vars(a), "prog": ""} for a in _actions(_commands()[tuple(command)]) if a.help}
    with as_function(options()):
        return "\n".join(f"{name}: {in_words(helps[name])}" for name in names if name in helps)


def defaults(command: Sequence[str]) -> dict[str, Any]:
    """{option: its default} of a command, but for --help and --json, which are of a terminal."""
    return {action.dest: action.default for action in _actions(_commands()[tuple(command)]) if action.dest not in ("help", "json")}


@functools.cache
def options() -> dict[str, bool]:
    """{option without its dashes: whether it stands without a value}, of all commands: for
    `errors.as_function`."""
    known = (action for parser in _commands().values() for action in _actions(parser))
    return {option.removeprefix("--"): action.nargs == 0 for action in known for option in action.option_strings}


@functools.cache
def _commands() -> dict[tuple[str, ...], argparse.ArgumentParser]:
    """Each command's parser, by its words: ("distill", "task")."""
    return dict(_below((), build_parser(_Parser)))


def _below(words: tuple[str, ...], parser: argparse.ArgumentParser) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    yield words, parser
    for action in _actions(parser):
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from _below((*words, name), child)


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions
