"""What a command comes to. `str()` of it is what the command line prints, `to_json()` what it prints
with --json; a function of the package returns it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


class Result(ABC):
    """`status` is the exit status of its command."""

    status = 0

    @abstractmethod
    def to_json(self) -> Any:
        """What --json prints."""

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, repr=False)
class Scores(Result):
    """What a model scores, or how it was trained.

    model: the model's directory, which `Classifier`, `load` and every command take. results:
    {split: {metric: value}}, such as {"dev": {"accuracy": 0.92}}; of general distillation {"train":
    the last mean losses}; empty where nothing was judged.
    """

    model: str
    results: Mapping[str, Mapping[str, float]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        from ..data.metrics import shown

        return "\n".join(f"{self.model}\t{split}\t{shown(metrics)}" for split, metrics in self.results.items())

    def __repr__(self) -> str:
        return str(self) or f"{self.model}\t(nothing judged)"


@dataclass(frozen=True, repr=False)
class Augmented(Result):
    """What `augment` wrote. train: the path of the longer training file; examples: of the source;
    rows: of the new file; words: gone through in all copies, of which `bert` and `glove` were
    replaced by the masked language model's and by the vectors' candidates."""

    train: str
    examples: int
    rows: int
    words: int
    bert: int
    glove: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in asdict(self).items())


@dataclass(frozen=True, repr=False)
class Predictions(Result):
    """What a model says. answers: of each text a dict, as `predict --json` prints it: "text" and,
    of a classifier, "label" (or "labels", or "score") and "probabilities"; of a model of words
    "words", "labels", "probabilities" and perhaps "entities"; of one that answers questions
    "answer", "start", "end" and "margin". files: the paths that a task's test files' answers went
    to, in the place of the answers."""

    answers: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def to_json(self) -> list[Any]:
        return self.files or self.answers

    def __str__(self) -> str:
        from .answer_tokens import shown
        from .texts import said

        return "\n".join(self.files or [shown(a) if "words" in a or "answer" in a else said(a) for a in self.answers])


class Report(Result, Mapping[str, Any]):
    """A dict of results, as --json prints it, and how it is shown."""

    def __init__(self, values: Mapping[str, Any], text: str, status: int = 0):
        self._values, self._text, self.status = values, text, status

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def to_json(self) -> Any:
        return self._values

    def __str__(self) -> str:
        return self._text
