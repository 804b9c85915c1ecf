"""Embedding loss (paper eq. 9):  L_embd = MSE(E^S W_e, E^T)      E the embeddings' output, after LayerNorm

The hidden loss's formula and gradient, with E for H and W_e, a matrix of its own, for W_h.
"""

from .hidden import Cache as Cache
from .hidden import backward as backward
from .hidden import forward as forward
