"""Any checkpoint to a model directory in Hugging Face's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import is_free
from ..progress import log
from . import hf_tokenizer
from .checkpoint import read_source
from .hf import write

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def convert(source: str | Path, destination: str | Path, overwrite: bool = False) -> dict[str, Any]:
    """Reads what `weights.read` reads, writes what `weights.write` writes; the tokenizer's files
    beside the source go along.

    Returns {source, format, tensors (how many), parameters (their elements), destination}.
    InputError for a source that cannot be read, and for a destination that is a file, or a
    directory with something in it; a model there is replaced with `overwrite`, and the source's own
    directory may get the weights in the other format too.
    """
    destination = Path(destination)
    in_place = Path(source).resolve() == destination.resolve() and not (destination / "model.safetensors").exists()
    _check_free(destination, overwrite or in_place)
    found, checkpoint = read_source(source)
    for note in hf_tokenizer.notes(checkpoint.tokenizer_files):
        log(f"warning: {note}")
    write(destination, checkpoint.config, checkpoint.tensors, checkpoint.tokenizer_files)
    return {
        "source": str(source),
        "format": found.format,
        "tensors": len(checkpoint.tensors),
        "parameters": sum(tensor.size for tensor in checkpoint.tensors.values()),
        "destination": str(destination),
    }


def _check_free(destination: Path, overwrite: bool) -> None:
    if destination.exists() and not destination.is_dir():
        raise InputError(f"{destination}: a file; the destination must be a directory")
    if is_free(destination):
        return
    if not ((destination / "config.json").is_file() and any((destination / name).is_file() for name in _WEIGHTS)):
        raise InputError(f"{destination}: holds files but no model (config.json and weights); choose a new or empty directory")
    if not overwrite:
        raise InputError(f"{destination}: holds a model already; choose a new directory, or say --overwrite")
