"""A recipe by its name, or from a TOML file that sets switches on top of a recipe that it names; and
switches set on the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..distillation.recipes import RECIPES, Recipe
from ..errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_BYTES = 1 << 16  # of a recipe's file


def load_recipe(name: str, switches: Sequence[str] = ()) -> Recipe:
    """A recipe by name, or from a .toml file, with `switches`, each NAME=VALUE, set on top of it.
    InputError names an unknown recipe or switch, and a value of the wrong kind."""
    named = [switch.partition("=") for switch in switches]
    for switch, (_, equals, _) in zip(switches, named, strict=True):
        if not equals:
            raise InputError(f"--set {switch}: NAME=VALUE is needed")
    return change(_by_name(name), {name.strip(): _value(text.strip()) for name, _, text in named}, "--set")


def _value(text: str) -> Any:
    """As in a TOML file, where quotes may be left out."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _by_name(name: str) -> Recipe:
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if path.suffix != ".toml":
        raise InputError(f"--recipe {name}: choose one of {', '.join(RECIPES)}, or a .toml file")
    try:
        with path.open("rb") as file:
            text = file.read(_BYTES + 1)
        if len(text) > _BYTES:
            raise InputError(f"{path}: more than {_BYTES} bytes; a recipe is a line a switch")
        switches = tomllib.loads(text.decode("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, and of a number with thousands of digits
        raise InputError(f"{path}: not TOML ({error})") from None
    base = switches.pop("recipe", "default")
    if not isinstance(base, str) or base not in RECIPES:
        raise InputError(f"{path}: recipe is {_shown(base)}; choose one of {', '.join(RECIPES)}")
    return change(RECIPES[base], switches, str(path))


_LISTS = {"layers", "hidden_weights", "attention_weights"}


def change(recipe: Recipe, switches: dict[str, Any], where: str) -> Recipe:
    """The recipe with some switches set otherwise; InputError where one is unknown or of another
    type."""
    kinds = {f.name: type(getattr(recipe, f.name)) for f in fields(Recipe)}
    for name in _LISTS & switches.keys():  # as one writes a list, or a number, in TOML
        value = switches[name] if isinstance(switches[name], list) else [switches[name]]
        if all(type(part) in (int, float) for part in value):
            switches = {**switches, name: ",".join(map(str, value))}
    for name, value in switches.items():
        if name not in kinds:
            raise InputError(f"{where}: no switch {name!r}; there are {', '.join(kinds)}")
        if kinds[name] is float and type(value) is int and abs(value) < 2**53:
            switches = {**switches, name: float(value)}
        elif type(value) is not kinds[name]:
            raise InputError(f"{where}: {name} is {_shown(value)}; a {kinds[name].__name__} is needed")
    try:
        return replace(recipe, **switches)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _shown(value: Any) -> str:
    """A value of TOML, whose tables may be nested without end."""
    try:
        return repr(value)
    except RecursionError:
        return f"a {type(value).__name__}"
