"""One spelling for each tensor, whatever wrote the file: the names of transformers' models with a
head."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import InputError

_OLD_NORM = {"gamma": "weight", "beta": "bias"}  # as Google named them, and files up to pytorch_transformers 1.0 after it
_BARE = ("embeddings.", "encoder.", "pooler.")  # of a model without a head, which has no `bert.`
_KNOWN = ("bert.", *_BARE, "cls.", "classifier.", "qa_outputs.", "fit_dense")
# What wraps a module adds a part to its tensors' names, at whatever depth it was wrapped: DataParallel, torch.compile, FSDP,
# checkpointed activations.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


def canonical(name: str) -> str:
    """`module.model._orig_mod.encoder.layer.0.output.LayerNorm.gamma` ->
    `bert.encoder.layer.0.output.LayerNorm.weight`; heads keep their names, and so does what is no
    tensor of a BERT."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    while parts[0:1] == ["model"]:  # the attribute under which Lightning's modules, and others, keep theirs
        parts = parts[1:]
    bare = ".".join(parts)
    name = bare if bare.startswith(_KNOWN) else name
    name = re.sub(r"(?<=\bLayerNorm\.)(gamma|beta)$", lambda match: _OLD_NORM[match[0]], name)
    return "bert." + name if name.startswith(_BARE) else name


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
