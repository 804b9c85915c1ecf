"""minitinybert: TinyBERT (arXiv 1909.10351) from scratch on NumPy and CuPy, every backward pass by
hand."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .errors import InputError
    from .model.bert import Bert
    from .model.trace import Trace

    load = Bert.load

__all__ = ["Bert", "InputError", "Trace", "load"]

_HOMES = {"Bert": ".model.bert", "InputError": ".errors", "Trace": ".model.trace"}


def __getattr__(name: str) -> Any:
    """A public name, from its home when it is first asked for: `minitinybert --help` needs no
    NumPy. `load(path) -> Bert` is Bert.load: a model from a directory in Hugging Face layout."""
    if name == "load":
        value: Any = import_module(".model.bert", __name__).Bert.load
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name], __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, value)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
