"""BERT's heads: the pooler with its classifier, and the masked language model, each forward above its backward.

Weights and gradients are looked up by name in a Parameters each.
"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, array_module, fused
from ..ops import dropout, gelu, layer_norm, linear
from .config import Config
from .parameters import Parameters


class ClassifierCache(NamedTuple):
    pooler: linear.Cache
    pooled: Array  # (S, d)
    relu: bool
    dropout: dropout.Cache
    classifier: linear.Cache | None  # None: a pooler alone


def classify(x: Array, p: Parameters, config: Config, keys: Array | None) -> tuple[Array, Array | None, ClassifierCache]:
    """First tokens x (S, d) -> pooled = tanh(x Wₚᵀ + bₚ) (S, d), logits = dropout(pooled) Wᵀ + b (S, C) or None."""
    W, b = _dense(p, "pooler.dense")
    u, pooler = linear.forward(x, W, b, add=False)
    pooled = biased_tanh(u, b)
    rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
    if config.classifier_relu:
        kept, drop = dropout.forward(array_module(x).maximum(pooled, 0), 0.0, None)
    else:
        kept, drop = dropout.forward(pooled, rate, keys)
    logits, classifier = linear.forward(kept, *_dense(p, "classifier")) if config.head == "classifier" else (None, None)
    return pooled, logits, ClassifierCache(pooler, pooled, config.classifier_relu, drop, classifier)


def classify_backward(dpooled: Array | None, dlogits: Array | None, cache: ClassifierCache, grads: Parameters) -> Array:
    """dpooled (S, d) and dlogits (S, C), either None -> dx (S, d).    tanh′(u) = 1 − pooled²;  relu′ is 1 above 0, else 0."""
    total = dpooled
    if dlogits is not None and cache.classifier is not None:
        dkept, _, _ = linear.backward(dlogits, cache.classifier, _dense(grads, "classifier"))
        dkept = dropout.backward(dkept, cache.dropout)
        dkept = dkept * (cache.pooled > 0) if cache.relu else dkept
        total = dkept if dpooled is None else dkept + dpooled
    du = through_tanh(total, cache.pooled)
    dx, _, _ = linear.backward(du, cache.pooler, _dense(grads, "pooler.dense"))
    return dx


@fused
def biased_tanh(u: Array, b: Array) -> Array:
    """tanh(u + b), in the place of u (S, d); b (d,)."""
    u += b
    return array_module(u).tanh(u, out=u)


@fused
def through_tanh(dy: Array, y: Array) -> Array:
    """dx of y = tanh x:  dy (1 − y²)."""
    return dy * (1 - y * y)


class MlmCache(NamedTuple):
    rows: Array | None  # which rows of the last layer were asked; None: all
    transform: linear.Cache
    gelu: gelu.Cache
    norm: layer_norm.Cache
    decoder: linear.Cache


def predict_words(x: Array, rows: Array | None, p: Parameters, config: Config, keep_cache: bool = True) -> tuple[Array, MlmCache]:
    """x (T, d), rows (n,) or None for all -> logits (n, V) = LayerNorm(GELU(x Wᵀ + b)) Eᵀ + c, E the word embeddings (tied)."""
    W, b = _dense(p, "cls.predictions.transform.dense")
    u, transform = linear.forward(x if rows is None else x[rows], W)
    a, activation = gelu.forward(u, b, config.gelu_approximation, keep_cache)
    t, norm = layer_norm.forward(a, *_dense(p, "cls.predictions.transform.LayerNorm"), config.layer_norm_eps, keep_cache)
    logits, decoder = linear.forward(t, *_decoder(p))
    return logits, MlmCache(rows, transform, activation, norm, decoder)


def predict_words_backward(dlogits: Array, cache: MlmCache, dx: Array, grads: Parameters) -> None:
    """dlogits (…, V) -> added to dx (T, d) at the asked rows. Writes the tied table's gradient: the embeddings add theirs to it."""
    dt, _, _ = linear.backward(dlogits.reshape(-1, dlogits.shape[-1]), cache.decoder, _decoder(grads))
    da, _, _ = layer_norm.backward(dt, cache.norm, _dense(grads, "cls.predictions.transform.LayerNorm"))
    dW, db = _dense(grads, "cls.predictions.transform.dense")
    du, _ = gelu.backward(da, cache.gelu, db)
    drows, _, _ = linear.backward(du, cache.transform, (dW, None))
    if cache.rows is None:
        dx += drows
    else:
        array_module(dx).add.at(dx, cache.rows, drows)


def _dense(p: Parameters, name: str) -> tuple[Array, Array]:
    return p[name + ".weight"], p[name + ".bias"]


def _decoder(p: Parameters) -> tuple[Array, Array]:
    return p["embeddings.word_embeddings.weight"], p["cls.predictions.bias"]
