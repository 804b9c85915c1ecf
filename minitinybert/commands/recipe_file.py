"""A recipe by its name, or from a TOML file that sets switches on top of a recipe that it names."""

from __future__ import annotations

import sys
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


def load_recipe(name: str) -> Recipe:
    """A recipe by name, or from a .toml file. InputError names an unknown recipe or switch, and a
    value of the wrong kind."""
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


def change(recipe: Recipe, switches: dict[str, Any], where: str) -> Recipe:
    """The recipe with some switches set otherwise; InputError where one is unknown or of another
    type."""
    kinds = {f.name: type(getattr(recipe, f.name)) for f in fields(Recipe)}
    layers = switches.get("layers")
    if isinstance(layers, list) and all(type(layer) is int for layer in layers):  # as one writes a list in TOML
        switches = {**switches, "layers": ",".join(map(str, layers))}
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
