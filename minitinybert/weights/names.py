"""One spelling for each tensor, whatever wrote the file: the names of transformers' models with a
head."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import InputError

_OLD_NORM = {"gamma": "weight", "beta": "bias"}  # as Google named them, and files up to pytorch_transformers 1.0 after it


def canonical(name: str) -> str:
    """`module.encoder.layer.0.output.LayerNorm.gamma` ->
    `bert.encoder.layer.0.output.LayerNorm.weight`; heads keep their names."""
    name = name.removeprefix("module.")  # DataParallel's
    name = re.sub(r"(?<=\bLayerNorm\.)(gamma|beta)$", lambda match: _OLD_NORM[match[0]], name)
    return "bert." + name if name.startswith(("embeddings.", "encoder.", "pooler.")) else name


def rename(tensors: Mapping[str, np.ndarray], where: Path) -> dict[str, np.ndarray]:
    """The tensors under their canonical names, without position_ids buffers. InputError where two
    names become one."""
    renamed: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        new = canonical(name)
        if new in renamed:
            raise InputError(f"{where}: two tensors are {new} (one is spelt {name}); remove one of them")
        renamed[new] = tensor
    renamed.pop("bert.embeddings.position_ids", None)
    return renamed
