"""Any checkpoint to a model directory, where it is one that another command can open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import weights
from ..errors import InputError
from ..model.bert import Bert
from ..model.config import Config
from ..weights import convert as formats
from .classifiers import tell_of_relu
from .remembered import recall, remember


def convert(source: str, destination: Path, overwrite: bool = False) -> dict[str, Any]:
    """As `weights.convert.convert`; what the source remembers of its task goes along. InputError for
    what no other command could open, and for a model whose outputs are not finite."""
    model = _openable(weights.read(source), source)
    model.check_finite(source)
    known = recall(source)
    summary = formats.convert(source, destination, overwrite)
    remember(destination, known)
    tell_of_relu(model.config, destination)
    return summary


def _openable(checkpoint: weights.Checkpoint, source: str) -> Bert:
    """The model; without a head for words that is untied or of another size, which goes along as
    it is: whoever fine-tunes does not need it."""
    try:
        return Bert.from_checkpoint(checkpoint, source)
    except InputError:
        if Config.from_hf(checkpoint.config, f"{source}/config.json").head != "mlm":
            raise
    return Bert.from_checkpoint(checkpoint, source, head="none")
