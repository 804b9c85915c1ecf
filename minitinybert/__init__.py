"""minitinybert: TinyBERT (arXiv 1909.10351) from scratch on NumPy and CuPy, every backward pass by
hand."""

from .model.bert import Bert
from .model.trace import Trace

load = Bert.load
"""load(path) -> Bert: a model from a directory in Hugging Face layout (see Bert.load)."""

__all__ = ["Bert", "Trace", "load"]
__version__ = "0.1.0"
