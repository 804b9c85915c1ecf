"""minitinybert: TinyBERT (arXiv 1909.10351) from scratch on NumPy and CuPy, every backward pass by
hand."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .api import augment, distill_general, distill_task, evaluate, finetune, info, predict, pretrain
    from .commands.results import Augmented, Predictions, Report, Scores
    from .commands.texts import Answer, Classifier
    from .errors import InputError
    from .model.bert import Bert
    from .model.config import Config
    from .model.trace import Trace

    load = Bert.load

__all__ = [
    "Answer", "Augmented", "Bert", "Classifier", "Config", "InputError", "Predictions", "Report", "Scores", "Trace", "augment",
    "distill_general", "distill_task", "evaluate", "finetune", "info", "load", "predict", "pretrain",
]  # fmt: skip

_HOMES = {
    ".api": "augment distill_general distill_task evaluate finetune info predict pretrain",
    ".commands.results": "Augmented Predictions Report Scores",
    ".commands.texts": "Answer Classifier",
    ".errors": "InputError",
    ".model.bert": "Bert",
    ".model.config": "Config",
    ".model.trace": "Trace",
}


def __getattr__(name: str) -> Any:
    """A public name, from its home when it is first asked for: `minitinybert --help` needs no
    NumPy. `load(path) -> Bert` is Bert.load: a model from a directory in Hugging Face layout."""
    if name == "load":
        value: Any = import_module(".model.bert", __name__).Bert.load
    elif name in __all__:
        home = next(home for home, names in _HOMES.items() if name in names.split())
        value = getattr(import_module(home, __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, value)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
