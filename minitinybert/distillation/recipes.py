"""Recipes: every choice of the method as one named set of switches. The paper and the code its
authors released differ in many.

    paper         what the paper says; where it is silent, ours
    huawei-2019   what the released code does
    default       as paper, but AdamW with bias correction and ε 1e-8, and general distillation's batches are smaller

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
    padding_gradient: bool = True  # False: looking [PAD] up gives its word embedding no gradient, as nn.Embedding(padding_idx=…)
    teacher_dropout: bool = False  # True: the teacher runs in training mode
    classifier_relu: bool = False  # True: logits = classifier(relu(pooled)), no dropout between: the student's, and of what is fine-tuned
    teacher_head: str = "own"  # the teacher's logits: "own": as its config.json says; "relu": classifier(relu(pooled)) whatever that says
    temperature: float = 1.0  # t of the prediction loss
    prediction_mean: str = "sentences"  # the prediction loss is a mean over "sentences", or over sentences × classes: "elements"
    embedding_weight: float = 1.0  # λ of the embedding loss
    hidden_weights: str = "1"  # λ of each student layer's hidden loss: one for all, or one a layer, "1,0.5,1,2"; 0 leaves it out
    attention_weights: str = "1"  # λ of each student layer's attention loss
    attention_target: str = "scores"  # the attention loss compares "scores", or "probabilities", their softmax
    general_prediction: float = 0.0  # λ of a prediction loss of words in general distillation; above 0 both models have a head for them
    regression_target: str = "teacher"  # "teacher": its number; "labels": the data's
    regression_data: str = "original"  # of the prediction step: "original", never augmented; "augmented": as the first step's
    regression_metric: str = "pearson"  # by which the best model is kept: "pearson", or "mean" of it and Spearman's
    regression_bias: str = "mean"  # where a fresh regression head's bias starts: at the "mean" of the training labels, or at "zero"
    heads: str = "refuse"  # where head counts differ: "refuse", "drop" the attention loss, "average" groups of heads
    layers: str = "uniform"  # the layer map: "uniform", "top", "bottom", or the teacher's layers, "3,6,9,12"
    optimizer: str = "adamw"  # "adamw": bias correction, ε 1e-8; "bert": none, ε 1e-6; "bert-adam": so, each tensor clipped by itself
    decay_untouched: bool = True  # False: what no loss of the intermediate step reaches (pooler and classifier) does not decay in it
    intermediate_schedule: str = "linear"  # of the learning rate: "linear", up over the warm-up, then down to 0; or "constant"
    eval_every: int = 0  # steps between evaluations, of which the best model is kept; 0: once an epoch
    incomplete_batches: bool = True  # False: what is left over from an epoch's last whole batch is not trained on
    student_embeddings: str = "nearest"  # a student made of a shape starts with "random" ones, or those "nearest" to its teacher's
    carry_projections: bool = True  # False: general distillation's W_e and W_h are drawn anew for the task's
    corpus_masking: str = "none"  # of general distillation's text: "none", "one" position a sequence, "mlm" 15 %
    corpus_pairs: bool = False  # general distillation's examples: single segments, or pairs of two as BERT's
    hyperparameters: str = "ours"  # epochs, learning rates, lengths and batches (training/plan.py): "ours", "paper" or "released"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"recipe: {name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}")
        if self.eval_every < 0:
            raise InputError(f"recipe: eval_every is {self.eval_every}; a number of steps is needed, or 0 for once an epoch")
        if not 0 < self.temperature < math.inf:
            raise InputError(f"recipe: temperature is {self.temperature!r}; a number above 0 is needed")
        for name in ("embedding_weight", "general_prediction"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"recipe: {name} is {getattr(self, name)!r}; a number of 0 or more is needed")
        for name in ("hidden_weights", "attention_weights"):
            if not re.fullmatch(rf"\s*{_NUMBER}\s*(,\s*{_NUMBER}\s*)*", getattr(self, name), re.ASCII):
                raise InputError(f"recipe: {name} is {getattr(self, name)!r}; a number of 0 or more is needed, or one a layer: 1,0.5,1,2")
        if self.layers not in ("uniform", "top", "bottom") and not re.fullmatch(
            r"\s*\d{1,4}\s*(,\s*\d{1,4}\s*)*", self.layers, re.ASCII
        ):
            raise InputError(f"recipe: layers is {self.layers!r}; choose uniform, top, bottom, or teacher layers such as 3,6,9,12")

    @property
    def layer_map(self) -> str | list[int]:
        """As `distill.layer_map` takes it."""
        return self.layers if self.layers.isalpha() else [int(part) for part in self.layers.split(",")]

    @property
    def weights(self) -> dict[str, float | tuple[float, ...]]:
        """λ of the intermediate step's terms: of all layers, or one a layer."""
        numbers = lambda text: tuple(float(part) for part in text.split(","))
        one_or_all = lambda values: values if values[1:] else values[0]
        of_layers = {"hidden": numbers(self.hidden_weights), "attention": numbers(self.attention_weights)}
        return {"embedding": self.embedding_weight, **{term: one_or_all(values) for term, values in of_layers.items()}}


_NUMBER = r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?"

_CHOICES = {
    "projection": ("split", "shared", "layer", "none"),
    "padding": ("exclude", "count"),
    "prediction_mean": ("sentences", "elements"),
    "attention_target": ("scores", "probabilities"),
    "teacher_head": ("own", "relu"),
    "regression_target": ("teacher", "labels"),
    "regression_data": ("original", "augmented"),
    "regression_metric": ("pearson", "mean"),
    "regression_bias": ("mean", "zero"),
    "heads": ("refuse", "drop", "average"),
    "optimizer": ("adamw", "bert", "bert-adam"),
    "intermediate_schedule": ("linear", "constant"),
    "student_embeddings": ("random", "nearest"),
    "corpus_masking": ("none", "one", "mlm"),
    "hyperparameters": ("ours", "paper", "released"),
}

DEFAULT = Recipe()
RECIPES = {
    "default": DEFAULT,
    "paper": Recipe(student_embeddings="random", optimizer="bert", hyperparameters="paper"),
    "huawei-2019": Recipe(
        projection="shared",
        projection_bias=True,
        padding="count",
        padding_gradient=False,
        teacher_dropout=True,
        classifier_relu=True,
        teacher_head="relu",
        prediction_mean="elements",
        regression_target="labels",
        regression_data="augmented",
        regression_metric="mean",
        regression_bias="zero",
        optimizer="bert-adam",
        decay_untouched=False,
        intermediate_schedule="constant",
        eval_every=50,
        student_embeddings="random",
        incomplete_batches=False,
        corpus_masking="one",
        corpus_pairs=True,
        hyperparameters="released",
    ),
}
