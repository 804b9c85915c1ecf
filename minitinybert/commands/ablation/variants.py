"""The paper's ablations as variants of one procedure (section 4.4, and table 7 of the appendix): what
each leaves out, and what the paper found.

table 2  w/o GD    the student starts the task from random weights
         w/o TD    the generally distilled student is fine-tuned on the task's labels, for as many epochs as both steps together
         w/o DA    the task's own training data in place of the augmented
table 3  w/o Embd, w/o Trm, w/o Attn, w/o Hidn
                   the embedding, Transformer-layer (attention and hidden), attention or hidden loss
                   is 0, in GD and in TD
         w/o Pred  the second step is fine-tuning on the labels of the original training set in place of soft cross-entropy with the
                   teacher's logits (paper, the footnote in section 4.5.2)
table 4  top, bottom  the layer map, in GD and in TD; "full" has the uniform one
table 7  BERT-tiny, BERT-tiny+TD
                   the student is pre-trained itself, as a masked language model, in place of GD; then fine-tuned, or TD; without DA
         GD only   w/o TD and without DA
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
    pretrained: bool = False  # in its place: the student is trained as a masked language model on the same text
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
    """A row of the tables. figures: TinyBERT4's on the dev files of MNLI-m, MNLI-mm, MRPC and CoLA
    in the paper."""

    name: str
    figures: tuple[float, float, float, float]
    procedure: Procedure

    def paper(self, task: str) -> float:
        """The paper's figure for a task: of MNLI the mean of both files; of one that it does not
        have (`PAPER_TASKS`), the mean of all four."""
        m, mm, mrpc, cola = self.figures
        own = {"mnli": (m + mm) / 2, "mrpc": mrpc, "cola": cola}
        return own.get(task, sum(self.figures) / 4)

    @property
    def slug(self) -> str:
        """Its name as a directory's."""
        return _slug(self.name)


PAPER_TASKS = ("mnli", "mrpc", "cola")
VARIANTS = (
    Variant("full", (82.8, 82.9, 85.8, 50.8), Procedure()),
    Variant("w/o GD", (82.5, 82.6, 84.1, 40.8), Procedure(general=False)),
    Variant("w/o TD", (80.6, 81.2, 83.8, 28.5), Procedure(distil=False, soft=False)),
    Variant("w/o DA", (80.5, 81.0, 82.4, 29.8), Procedure(augmented=False)),
    Variant("w/o Embd", (82.3, 82.3, 85.0, 46.7), Procedure(terms=("hidden", "attention"))),
    Variant("w/o Pred", (80.5, 81.0, 84.3, 48.2), Procedure(soft=False)),
    Variant("w/o Trm", (71.7, 72.3, 70.1, 11.2), Procedure(terms=("embedding",))),
    Variant("w/o Attn", (79.9, 80.7, 82.3, 41.1), Procedure(terms=("embedding", "hidden"))),
    Variant("w/o Hidn", (81.7, 82.1, 84.1, 43.7), Procedure(terms=("embedding", "attention"))),
    Variant("top", (81.7, 82.3, 83.6, 35.9), Procedure(layers="top")),
    Variant("bottom", (80.6, 81.3, 84.6, 38.5), Procedure(layers="bottom")),
    Variant("BERT-tiny", (75.9, 76.9, 83.2, 19.5), Procedure(pretrained=True, distil=False, augmented=False, soft=False)),
    Variant("BERT-tiny+TD", (79.2, 79.7, 82.9, 12.4), Procedure(pretrained=True, augmented=False)),
    Variant("GD only", (76.6, 77.2, 82.0, 8.7), Procedure(distil=False, augmented=False, soft=False)),
)
FULL, GD_ONLY = VARIANTS[0], VARIANTS[-1]


def choose(names: Sequence[str] | None) -> list[Variant]:
    """Variants by name ("w/o GD" or "without-gd") in the paper's order, all without names; "full"
    is always among them."""
    wanted = {v.slug for v in VARIANTS} if names is None else {_slug(name) for name in names}
    unknown = wanted - {v.slug for v in VARIANTS}
    if unknown:
        raise InputError(f"--variants {', '.join(sorted(unknown))}: choose of {', '.join(v.slug for v in VARIANTS)}")
    return [v for v in VARIANTS if v is FULL or v.slug in wanted]


def _slug(name: str) -> str:
    return name.lower().replace("w/o ", "without-").replace(" ", "-").replace("+", "-")
