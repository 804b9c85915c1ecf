"""What distillation looks at: a Trace of a forward pass, and of the gradient with respect to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.device import Array


@dataclass
class Trace:
    """The seen parts of a forward pass, or a gradient for each of them; what is None is absent (in
    a gradient: zero).

    embedding (…, d)   the embeddings' output, after LayerNorm; the same array as hidden[0]
    hidden             M+1 entries (None where not asked for) (…, d): the embeddings' output, then each layer's
    scores             M entries: q kᵀ/√d_k before mask and softmax; (B, h, L, L), or flat from a packed batch (model/self_attention.py)
    pooled (B, d)      tanh of the pooler at the first token
    logits (B, C)      the classifier's; (B, L, V) or (n, V) at n asked positions for a masked language model, with C for V the labels of
                       tokens, and C = 2 where an answer begins and ends

    In a gradient, `embedding` and `hidden[0]` add up.
    """

    embedding: Array | None = None
    hidden: Sequence[Array] | None = None
    scores: Sequence[Array] | None = None
    pooled: Array | None = None
    logits: Array | None = None

    def __repr__(self) -> str:
        """The shapes of what is there: Trace(hidden 3 × (2, 7, 16), logits (2, 2))."""
        parts = []
        for name, part in vars(self).items():
            arrays = [part] if name not in ("hidden", "scores") else [array for array in part or () if array is not None]
            shapes = dict.fromkeys(tuple(array.shape) for array in arrays if array is not None)
            if shapes:
                parts.append(f"{name} {f'{len(arrays)} × ' if part is not arrays[0] else ''}{', '.join(map(str, shapes))}")
        return f"Trace({', '.join(parts)})"

    def astype(self, dtype: Any) -> Trace:
        """A gradient in `dtype`; an array that has it already is not copied."""
        cast = lambda a: None if a is None else a.astype(dtype, copy=False)
        parts = lambda arrays: arrays and [cast(a) for a in arrays]
        return Trace(cast(self.embedding), parts(self.hidden), parts(self.scores), cast(self.pooled), cast(self.logits))
