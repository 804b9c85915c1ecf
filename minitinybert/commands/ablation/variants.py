"""The paper's ablations as variants of one procedure (section 4.4): what each leaves out, and what
the paper found.

table 2  w/o GD    the student starts the task from random weights
         w/o TD    the generally distilled student is fine-tuned on the task's labels, for as many epochs as both steps together
         w/o DA    the task's own training data in place of the augmented
table 3  w/o Embd, w/o Trm, w/o Attn, w/o Hidn
                   the embedding, Transformer-layer (attention and hidden), attention or hidden loss
                   is 0, in GD and in TD
         w/o Pred  the second step is fine-tuning on the labels in place of soft cross-entropy with the teacher's logits
table 4  top, bottom  the layer map, in GD and in TD; "full" has the uniform one
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import InputError

TERMS = ("embedding", "hidden", "attention")


@dataclass(frozen=True)
class Procedure:
    """What a student goes through. The defaults are the whole method."""

    general: bool = True  # general distillation first
    distil: bool = True  # the task's intermediate step
    augmented: bool = True  # the task's augmented training data
    terms: tuple[str, ...] = TERMS  # the layer losses of GD and of the intermediate step
    soft: bool = True  # the last step learns from the teacher's logits; False: from the labels
    layers: str = "uniform"  # the layer map of both

    @property
    def weights(self) -> dict[str, float]:
        """λ of every term, as `distill.Intermediate` takes them."""
        return {term: float(term in self.terms) for term in TERMS}


@dataclass(frozen=True)
class Variant:
    """A row of the tables. paper: TinyBERT4's average of MNLI-m, MNLI-mm, MRPC and CoLA (dev) in
    the paper."""

    name: str
    paper: float
    procedure: Procedure

    @property
    def slug(self) -> str:
        """Its name as a directory's."""
        return self.name.lower().replace("w/o ", "without-")


VARIANTS = (
    Variant("full", 75.6, Procedure()),
    Variant("w/o GD", 72.5, Procedure(general=False)),
    Variant("w/o TD", 68.5, Procedure(distil=False, soft=False)),
    Variant("w/o DA", 68.4, Procedure(augmented=False)),
    Variant("w/o Embd", 74.1, Procedure(terms=("hidden", "attention"))),
    Variant("w/o Pred", 73.5, Procedure(soft=False)),
    Variant("w/o Trm", 56.3, Procedure(terms=("embedding",))),
    Variant("w/o Attn", 71.0, Procedure(terms=("embedding", "hidden"))),
    Variant("w/o Hidn", 72.9, Procedure(terms=("embedding", "attention"))),
    Variant("top", 70.9, Procedure(layers="top")),
    Variant("bottom", 71.3, Procedure(layers="bottom")),
)
FULL = VARIANTS[0]
ORDER = (
    ("full", "w/o DA"), ("full", "w/o GD"), ("w/o DA", "w/o TD"), ("w/o GD", "w/o TD"), ("full", "w/o Attn"), ("w/o Attn", "w/o Trm"),
)  # fmt: skip


def choose(names: Sequence[str] | None) -> list[Variant]:
    """Variants by name ("w/o GD" or "without-gd") in the paper's order, all without names; "full"
    is always among them."""
    wanted = {v.slug for v in VARIANTS} if names is None else {name.lower().replace("w/o ", "without-") for name in names}
    unknown = wanted - {v.slug for v in VARIANTS}
    if unknown:
        raise InputError(f"--variants {', '.join(sorted(unknown))}: choose of {', '.join(v.slug for v in VARIANTS)}")
    return [v for v in VARIANTS if v is FULL or v.slug in wanted]
