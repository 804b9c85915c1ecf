"""Recipes: every choice of the method as one named set of switches. The paper and the code its
authors released differ in many.

    paper         what the paper says; where it is silent, ours
    huawei-2019   what the released code does
    default       as paper, but AdamW with bias correction and ε 1e-8

A TOML file sets switches on top of a recipe that it names:

    recipe = "paper"
    temperature = 2.0
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class Recipe:
    """The switches. What each one changes stands beside it."""

    projection: str = "split"  # "split": W_e and W_h; "shared": one for all; "layer": one for each of hidden[0…M]; "none"
    projection_bias: bool = False
    project_equal_widths: bool = True  # False: compare directly where student and teacher are equally wide
    padding: str = "exclude"  # "exclude" padding from every mean; "count": pad to the full length, and the padding is in the means
    teacher_dropout: bool = False  # True: the teacher runs in training mode
    classifier_relu: bool = False  # True: logits = classifier(relu(pooled)), and no dropout between
    temperature: float = 1.0  # t of the prediction loss
    prediction_mean: str = "sentences"  # the prediction loss is a mean over "sentences", or over sentences × classes: "elements"
    regression_target: str = "teacher"  # "teacher": its number; "labels": the data's
    heads: str = "refuse"  # where head counts differ: "refuse", "drop" the attention loss, "average" groups of heads
    layers: str = "uniform"  # the layer map: "uniform", "top", "bottom", or the teacher's layers, "3,6,9,12"
    optimizer: str = "adamw"  # "adamw": bias correction, ε 1e-8; "bert": none, ε 1e-6; "bert-adam": so, each tensor clipped by itself
    intermediate_schedule: str = "linear"  # of the learning rate: "linear", up over the warm-up, then down to 0; or "constant"
    carry_projections: bool = True  # False: general distillation's W_e and W_h are drawn anew for the task's
    corpus_masking: str = "none"  # of general distillation's text: "none", "one" position a sequence, "mlm" 15 %
    corpus_pairs: bool = False  # general distillation's examples: single segments, or pairs of two as BERT's
    hyperparameters: str = "paper"  # epochs, learning rates, lengths and batches (training/plan.py): "paper" or "released"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"recipe: {name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}")
        if not 0 < self.temperature < math.inf:
            raise InputError(f"recipe: temperature is {self.temperature!r}; a number above 0 is needed")
        if self.layers not in ("uniform", "top", "bottom") and not re.fullmatch(r"\s*\d{1,4}\s*(,\s*\d{1,4}\s*)*", self.layers, re.ASCII):
            raise InputError(f"recipe: layers is {self.layers!r}; choose uniform, top, bottom, or teacher layers such as 3,6,9,12")

    @property
    def layer_map(self) -> str | list[int]:
        """As `distill.layer_map` takes it."""
        return self.layers if self.layers.isalpha() else [int(part) for part in self.layers.split(",")]


_CHOICES = {
    "projection": ("split", "shared", "layer", "none"),
    "padding": ("exclude", "count"),
    "prediction_mean": ("sentences", "elements"),
    "regression_target": ("teacher", "labels"),
    "heads": ("refuse", "drop", "average"),
    "optimizer": ("adamw", "bert", "bert-adam"),
    "intermediate_schedule": ("linear", "constant"),
    "corpus_masking": ("none", "one", "mlm"),
    "hyperparameters": ("paper", "released"),
}

DEFAULT = Recipe()
RECIPES = {
    "default": DEFAULT,
    "paper": Recipe(optimizer="bert"),
    "huawei-2019": Recipe(
        projection="shared",
        projection_bias=True,
        padding="count",
        teacher_dropout=True,
        classifier_relu=True,
        prediction_mean="elements",
        regression_target="labels",
        optimizer="bert-adam",
        intermediate_schedule="constant",
        corpus_masking="one",
        corpus_pairs=True,
        hyperparameters="released",
    ),
}
