"""The examples in the docstrings of the rooms that are read are what comes out."""

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest

import minitinybert

PACKAGE = Path(minitinybert.__file__).parent
FOUND = [
    example
    for room in ("ops", "losses", "distillation")
    for path in sorted((PACKAGE / room).glob("*.py"))
    for example in doctest.DocTestFinder().find(importlib.import_module(f"minitinybert.{room}.{path.stem}"), extraglobs={"np": np})
    if example.examples
]


@pytest.mark.parametrize("example", FOUND, ids=lambda example: example.name)
def test_example(example, capsys):
    assert doctest.DocTestRunner().run(example).failed == 0, capsys.readouterr().out


def test_examples_are_found():
    assert {example.name.removeprefix("minitinybert.") for example in FOUND} >= {"ops.softmax.forward", "distillation.distill.layer_map"}
