"""Which kind of checkpoint a path is, and what it holds under canonical names."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from . import hf, hub, names, tensorflow, torch_bin
from .files import check_finite
from .hf_config import completed

Reader = Callable[[Path], dict[str, np.ndarray]]

_BY_NAME: dict[str, tuple[str, Reader]] = {  # in the order in which a directory is searched
    "model.safetensors": ("safetensors", hf.read_safetensors),
    "model.safetensors.index.json": ("safetensors", partial(hf.read_sharded, read_shard=hf.read_safetensors)),
    "pytorch_model.bin": ("PyTorch .bin", torch_bin.read),
    "pytorch_model.bin.index.json": ("PyTorch .bin", partial(hf.read_sharded, read_shard=torch_bin.read)),
}
_BY_SUFFIX: dict[str, tuple[str, Reader]] = {
    ".safetensors": ("safetensors", hf.read_safetensors),
    **dict.fromkeys((".bin", ".pt", ".pth"), ("PyTorch .bin", torch_bin.read)),
}
_TF_FORMAT = "TensorFlow checkpoint"


class Checkpoint(NamedTuple):
    """What a model is made of.

    config           config.json, parsed; where it leaves them out: model_type, architectures and id2label, from the tensors
    tensors          by canonical name (names.py), with the file's dtype but bfloat16, which becomes float32; finite; mostly read-only
                     views of the file
    tokenizer_files  those of hf_tokenizer.TOKENIZER_FILES that lie beside the weights, by name
    """

    config: dict[str, Any]
    tensors: dict[str, np.ndarray]
    tokenizer_files: dict[str, Path]


class Source(NamedTuple):
    """A checkpoint found: its format in words, the directory of its config.json, the file (or
    prefix) and what reads it."""

    format: str
    directory: Path
    weights: Path
    reader: Reader


def read(path: str | Path) -> Checkpoint:
    """A checkpoint from a directory, a file (.safetensors, .bin, .pt, .pth, a shards' index.json),
    a TensorFlow checkpoint's prefix or, where there is nothing of that name, a Hugging Face id
    `organisation/name` or `organisation/name@revision` (kept in huggingface_hub's cache).

    config.json (or Google's bert_config.json) must lie beside the weights. InputError names the
    file, and the tensor where there is one, for whatever is missing, cut short, damaged, not a
    checkpoint, or holds a number that is not finite.
    """
    return read_source(path)[1]


def read_source(path: str | Path) -> tuple[Source, Checkpoint]:
    """As `read`, and which kind of checkpoint it was."""
    try:
        source = _locate(os.fspath(path))
        config = hf.read_config(source.directory)
        tensors = names.rename(source.reader(source.weights), source.weights)
        for name, tensor in tensors.items():
            check_finite(tensor, name, source.weights)
        config = completed(config, tensors, f"{source.directory}/config.json")
        return source, Checkpoint(config, tensors, hf.tokenizer_files(source.directory))
    except OSError as error:
        raise InputError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from None


def _locate(text: str) -> Source:
    """The checkpoint that a path means, found by the names of files alone (a Hugging Face id is
    downloaded first)."""
    path = Path(text)
    prefix = path.with_suffix("") if path.suffix == ".index" else path
    if path.is_dir():
        return _in_directory(path)
    if Path(f"{prefix}.index").is_file():
        return Source(_TF_FORMAT, prefix.parent, prefix, tensorflow.read)
    if path.is_file():
        if path.name not in _BY_NAME and path.suffix not in _BY_SUFFIX:
            kinds = ", ".join(_BY_SUFFIX)
            raise InputError(f"{path}: not a kind of file that is read ({kinds}, a TensorFlow checkpoint's prefix, or a directory)")
        format, reader = _BY_NAME.get(path.name) or _BY_SUFFIX[path.suffix]
        return Source(format, path.parent, path, reader)
    if (model := hub.parse(text)) is not None:  # the text, for Path("./runs/teacher") no longer shows that a path is meant
        return _in_directory(hub.fetch(model))
    raise InputError(f"{path}: no such file or directory; give a model directory, a weights file, or a Hugging Face id (org/name)")


def _in_directory(directory: Path) -> Source:
    for name, (format, reader) in _BY_NAME.items():
        if (directory / name).is_file():
            return Source(format, directory, directory / name, reader)
    indices = sorted(directory.glob("*.ckpt*.index"))
    if len(indices) > 1:
        prefixes = ", ".join(index.stem for index in indices)
        raise InputError(f"{directory}: more than one TensorFlow checkpoint; give the path of one of {prefixes}")
    if indices:
        return Source(_TF_FORMAT, directory, indices[0].with_suffix(""), tensorflow.read)
    raise InputError(f"{directory}: no weights in it; looked for {', '.join(_BY_NAME)} and *.ckpt.index")
