"""BERT's heads: the pooler with its classifier, the masked language model, and the linear map of
every token (a word's label; where an answer begins and ends), each forward above its backward.

Weights P and gradients are looked up by name in a Parameters each.
"""

from __future__ import annotations

from typing import NamedTuple

from ..engine.device import Array, array_module
from ..ops import dropout, gelu, layer_norm, linear
from .config import TOKEN_MAPS, Config
from .parameters import Parameters


class ClassifierCache(NamedTuple):
    pooler: linear.Cache
    pooled: Array  # (S, d)
    relu: bool
    dropout: dropout.Cache
    classifier: linear.Cache | None  # None: a pooler alone


def classify(x: Array, P: Parameters, config: Config, keys: Array | None) -> tuple[Array, Array | None, ClassifierCache]:
    """First tokens x (S, d) -> pooled = tanh(x Wₚᵀ + bₚ) (S, d), logits = dropout(pooled) Wᵀ + b
    (S, C) or None."""
    u, pooler = linear.forward(x, *_dense(P, "pooler.dense"))
    pooled = array_module(x).tanh(u)
    if config.classifier_relu:
        kept, drop = dropout.forward(array_module(x).maximum(pooled, 0), 0.0, None)
    else:
        kept, drop = dropout.forward(pooled, config.dropout_before_labels, keys)
    logits, classifier = linear.forward(kept, *_dense(P, "classifier")) if config.head == "classifier" else (None, None)
    return pooled, logits, ClassifierCache(pooler, pooled, config.classifier_relu, drop, classifier)


def classify_backward(dpooled: Array | None, dlogits: Array | None, cache: ClassifierCache, grads: Parameters) -> Array:
    """dpooled (S, d) and dlogits (S, C), either None -> dx (S, d).    tanh′(u) = 1 − pooled²;  relu′ is 1 above 0, else 0."""
    total = dpooled
    if dlogits is not None and cache.classifier is not None:
        dkept, _, _ = linear.backward(dlogits, cache.classifier, _dense(grads, "classifier"))
        dkept = dropout.backward(dkept, cache.dropout)
        dkept = dkept * (cache.pooled > 0) if cache.relu else dkept
        total = dkept if dpooled is None else dkept + dpooled
    dx, _, _ = linear.backward(total * (1 - cache.pooled * cache.pooled), cache.pooler, _dense(grads, "pooler.dense"))
    return dx


class MlmCache(NamedTuple):
    rows: Array | None  # which rows of the last layer were asked; None: all
    transform: linear.Cache
    gelu: gelu.Cache
    norm: layer_norm.Cache
    decoder: linear.Cache


def predict_words(
    x: Array, rows: Array | None, P: Parameters, config: Config, decoder: linear.Affine | None = None
) -> tuple[Array, MlmCache]:
    """x (T, d), rows (n,) or None for all -> logits (n, V) = LayerNorm(GELU(x Wᵀ + b)) Eᵀ + c, E
    the word embeddings (tied); or E and c are `decoder`, of some words, for a forward pass alone."""
    u, transform = linear.forward(x if rows is None else x[rows], *_dense(P, "cls.predictions.transform.dense"))
    a, activation = gelu.forward(u, config.gelu_approximation)
    t, norm = layer_norm.forward(a, *_dense(P, "cls.predictions.transform.LayerNorm"), config.layer_norm_eps)
    logits, product = linear.forward(t, *(decoder or decoder_of(P)))
    return logits, MlmCache(rows, transform, activation, norm, product)


def predict_words_backward(dlogits: Array, cache: MlmCache, dx: Array, grads: Parameters) -> None:
    """dlogits (…, V) -> added to dx (T, d) at the asked rows. Writes the tied table's gradient: the
    embeddings add theirs to it."""
    dt, _, _ = linear.backward(dlogits.reshape(-1, dlogits.shape[-1]), cache.decoder, decoder_of(grads))
    dgain, dbias = _dense(grads, "cls.predictions.transform.LayerNorm")
    da, dgain[...], dbias[...] = layer_norm.backward(dt, cache.norm)
    du = gelu.backward(da, cache.gelu)
    drows, _, _ = linear.backward(du, cache.transform, _dense(grads, "cls.predictions.transform.dense"))
    if cache.rows is None:
        dx += drows
    else:
        array_module(dx).add.at(dx, cache.rows, drows)


class TokensCache(NamedTuple):
    rows: Array | None  # which rows of the last layer were asked; None: all
    dropout: dropout.Cache
    map: linear.Cache


def label_tokens(x: Array, rows: Array | None, P: Parameters, config: Config, keys: Array | None) -> tuple[Array, TokensCache]:
    """x (T, d), rows (n,) or None for all -> logits (n, C) = dropout(x) Wᵀ + b.

    head "tokens": C labels of words. head "spans": no dropout, C = 2, how well a piece begins an
    answer and how well it ends one (BERT, section 4.2: S·T_i and E·T_i, here with biases).
    """
    rate = config.dropout_before_labels if config.head == "tokens" else 0.0
    asked, asked_keys = (x, keys) if rows is None else (x[rows], None if keys is None else keys[rows])
    kept, drop = dropout.forward(asked, rate, asked_keys)
    logits, cache = linear.forward(kept, *_dense(P, TOKEN_MAPS[config.head]))
    return logits, TokensCache(rows, drop, cache)


def label_tokens_backward(dlogits: Array, cache: TokensCache, dx: Array, config: Config, grads: Parameters) -> None:
    """dlogits (n, C) -> added to dx (T, d) at the asked rows, of which one may be asked twice."""
    rows = dlogits.reshape(-1, dlogits.shape[-1])
    dkept, _, _ = linear.backward(rows, cache.map, _dense(grads, TOKEN_MAPS[config.head]))
    dasked = dropout.backward(dkept, cache.dropout)
    if cache.rows is None:
        dx += dasked
    else:
        array_module(dx).add.at(dx, cache.rows, dasked)


def _dense(P: Parameters, name: str) -> tuple[Array, Array]:
    return P[name + ".weight"], P[name + ".bias"]


def decoder_of(P: Parameters) -> linear.Affine:
    """E (V, d), the word embeddings, and the decoder's bias c (V,)."""
    return P["embeddings.word_embeddings.weight"], P["cls.predictions.bias"]
