"""BERT: embeddings, encoder layers, and the heads (pooler and classifier, masked language model,
labels of tokens, spans), forward and backward by hand.

    model = minitinybert.load("some/directory")
    trace, cache = model.forward(input_ids, attention_mask)         # trace: what distillation looks at
    gradients = model.backward(cache, Trace(logits=dlogits))        # any part of a trace's gradient, injected where it arose

Dropout sites are numbered: 0 the embeddings, 3l+1 … 3l+3 layer l's (probabilities, attention
output, feed-forward output), last the input of a classifier, of sentences or tokens; each draws its mask from (key of the
step, site, sentence, position).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import weights
from ..engine.batch import Batch, check_range, padded
from ..engine.device import Array, array_module, to_host
from ..engine.parallel import memory_bytes
from ..engine.random import generator, site_keys
from ..errors import InputError
from ..ops import embed_norm, embedding
from ..ops.embedding import Ids, Tables
from ..ops.linear import Affine
from ..progress import log
from . import encoder, heads
from .config import TOKEN_MAPS, Config
from .parameters import Layout, Parameters, Slot
from .trace import Trace

_PROBE = 32  # words that a model has to have an answer to before it is saved
_OF_TASKS = ("classifier", *TOKEN_MAPS)  # heads that are learned for a task
_LEARNED = ("classifier.", "qa_outputs.")  # their tensors


class Cache(NamedTuple):
    batch: Batch
    embedding: embed_norm.Cache
    layers: list[encoder.Cache]
    classifier: heads.ClassifierCache | None
    mlm: heads.MlmCache | None
    tokens: heads.TokensCache | None


class Bert:
    """A BERT with hand-written gradients. `parameters` is one flat array; `tokenizer_files` go
    along when it is saved."""

    def __init__(self, config: Config, parameters: Parameters, tokenizer_files: Mapping[str, Path] | None = None):
        self.config, self.parameters = config, parameters
        self.tokenizer_files = dict(tokenizer_files or {})

    # ------------------------------------------------------------------------------------------------ making, loading, saving

    @classmethod
    def new(cls, config: Config, seed: int = 0, dtype: Any = np.float32) -> Bert:
        """A model with BERT's random weights: N(0, initializer_range), gains 1, biases 0."""
        return cls._made(config, seed, dtype, {}, "")

    @classmethod
    def _made(cls, config: Config, seed: int, dtype: Any, sources: Mapping[str, np.ndarray], where: str) -> Bert:
        """Of the tensors `sources`, by the model's names, and random weights for the others."""
        plan = layout(config)
        _check_room(plan.size * np.dtype(dtype).itemsize, config)
        parameters = Parameters.zeros(plan, dtype)
        weights.fill(parameters, sources, where)
        for name in parameters:
            if name not in sources:
                _initialise(name, parameters[name], config.initializer_range, seed)
        return cls(config, parameters)

    @classmethod
    def load(
        cls,
        path: str | Path,
        head: str | None = None,
        labels: Sequence[str] | None = None,
        seed: int = 0,
        dtype: Any = np.float32,
        fresh_head: bool = False,
    ) -> Bert:
        """From any source that `weights.read` reads; the rest is `from_checkpoint`'s."""
        return cls.from_checkpoint(weights.read(path), path, head, labels, seed, dtype, fresh_head)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: weights.Checkpoint,
        where: str | Path,
        head: str | None = None,
        labels: Sequence[str] | None = None,
        seed: int = 0,
        dtype: Any = np.float32,
        fresh_head: bool = False,
    ) -> Bert:
        """From what `weights.read` gave for the path `where`. head: one of `Config.head`'s instead of
        the checkpoint's own, which is then not looked at.

        Where a head that is learned for a task ("classifier", "tokens", "spans") or `labels` are
        asked for, a pooler or such a head that the checkpoint does not have (or has for another
        number of labels, or for sentences in place of words) starts with random weights; the head
        does always with `fresh_head`. A checkpoint's own head has to be there whole. InputError
        names a tensor that is missing otherwise, has the wrong shape (nothing is allocated before
        all have the right one), or holds numbers too large for `dtype`.
        """
        config, tensors = Config.from_hf(checkpoint.config, f"{where}/config.json"), checkpoint.tensors
        asked = head is not None or labels is not None or fresh_head
        own, head = config.head, head or config.head
        config = replace(config, head=head, pooler=has_pooler(head, tensors))
        if head == "spans":
            labels = ["LABEL_0", "LABEL_1"]  # as transformers names the two logits
        if labels is not None:
            config = replace(config, id2label=dict(enumerate(labels)))
        if fresh_head or own in set(_OF_TASKS) - {head}:
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_LEARNED)}
        fresh = ("pooler.", *_LEARNED) if head in _OF_TASKS and asked else ()
        sources = weights.matched(layout(config).shapes, tensors, str(where), fresh)
        if f"bert.encoder.layer.{config.num_hidden_layers}.output.dense.weight" in tensors:
            log(f"warning: {where}: config.json has num_hidden_layers {config.num_hidden_layers}; the weights of more are left out")
        if head == "mlm":
            weights.check_tied(tensors, str(where))
        model = cls._made(config, seed, dtype, sources, str(where))
        model.tokenizer_files = dict(checkpoint.tokenizer_files)
        return model

    def save(self, path: str | Path) -> None:
        """A directory in Hugging Face's layout, which `minitinybert.load` and `transformers` open;
        written beside, then renamed.

        W_e and W_h go along under the released code's names, for distillation to go on with;
        whoever opens a model passes them over. InputError, and nothing is written, where parameters
        or outputs are not finite.
        """
        self.check_finite(str(path))
        tensors = weights.with_decoder({name: to_host(self.parameters[name]) for name in self.parameters})
        raw = {**self.config.to_hf(), "dtype": str(self.parameters.flat.dtype)}
        weights.write(Path(path), raw, tensors, self.tokenizer_files)

    def check_finite(self, where: str) -> None:
        """InputError unless all parameters are finite, and what the model says of some words spread
        over its vocabulary: weights may be finite and so large that nothing they give is."""
        self.parameters.check_finite(where)
        c = self.config
        words = np.linspace(0, c.vocab_size - 1, min(_PROBE, c.max_position_embeddings)).astype(np.int32)
        with np.errstate(all="ignore"):
            trace, _ = self.forward(words[None])
        said = [*(trace.hidden or ()), trace.pooled, trace.logits]
        if not all(np.isfinite(to_host(x)).all() for x in said if x is not None):
            problem = "what the model says is not finite (NaN, infinity), for its weights are too large"
            raise InputError(f"{where}: {problem}; train it with a smaller learning rate")

    def to(self, xp: Any) -> Bert:
        """The model with its parameters in `xp` (numpy or cupy)."""
        return self if array_module(self.parameters.flat) is xp else Bert(self.config, self.parameters.to(xp), self.tokenizer_files)

    def astype(self, dtype: Any) -> Bert:
        """The model with its parameters in `dtype`."""
        same = self.parameters.flat.dtype == np.dtype(dtype)
        return self if same else Bert(self.config, self.parameters.astype(dtype), self.tokenizer_files)

    def for_reading(self) -> Bert:
        """The model for forward passes alone, quicker where they have few rows: see
        `Parameters.for_reading`."""
        return Bert(self.config, self.parameters.for_reading(), self.tokenizer_files)

    def __repr__(self) -> str:
        c, flat = self.config, self.parameters.flat
        labels = f" of {c.num_labels} labels" if c.head in ("classifier", "tokens") else ""
        kind = f"{flat.dtype} in {array_module(flat).__name__}"
        return f"Bert({c.shape}, head {c.head}{labels}, {self.num_parameters:,} parameters, {kind})"

    @property
    def num_parameters(self) -> int:
        return sum(self.parameters[name].size for name in self.parameters if not name.startswith("fit_dense"))

    @property
    def num_encoder_parameters(self) -> int:
        """Of the encoder layers alone: what makes a student cheap to run (a look-up costs next to
        nothing)."""
        return sum(self.parameters[name].size for name in self.parameters if "encoder.layer." in name)

    # ------------------------------------------------------------------------------------------------ forward

    def forward(self, input_ids: Array, attention_mask: Array | None = None, token_type_ids: Array | None = None) -> tuple[Trace, Cache]:
        """Without dropout, on a rectangle. input_ids, attention_mask (1 real, 0 padding),
        token_type_ids: (B, L) integers.

        Returns a Trace with hidden (B, L, d), scores (B, h, L, L), pooled (B, d), logits (B, C), or
        (B, L, V) and (B, L, C) where the head looks at every token, and the cache for `backward`.
        InputError for ids out of range, sentences longer than the position table, and shapes that
        differ.
        """
        as_host = lambda a: None if a is None else to_host(a)
        batch = padded(to_host(input_ids), as_host(attention_mask), as_host(token_type_ids))
        trace, cache = self.forward_batch(self.place(batch))
        _, B, L = batch.runs[0]
        hidden = [x.reshape(B, L, -1) for x in trace.hidden or ()]
        scores = [A.reshape(B, -1, L, L) for A in trace.scores or ()]
        of_tokens = cache.mlm is not None or cache.tokens is not None
        logits = trace.logits.reshape(B, L, -1) if of_tokens else trace.logits  # type: ignore[union-attr]
        return Trace(hidden[0], hidden, scores, trace.pooled, logits), cache

    def place(self, batch: Batch) -> Batch:
        """The batch on the parameters' device, checked before it leaves the host."""
        self.check(batch)
        return batch.to(array_module(self.parameters.flat))

    def check(self, batch: Batch) -> None:
        """InputError unless every id of a host batch has its row in the tables. (A GPU would read
        whatever lies there.) One that is on a device was checked before, and is not asked again."""
        if not isinstance(batch.input_ids, np.ndarray):
            return
        for name, ids, rows in (
            ("input_ids", batch.input_ids, self.config.vocab_size),
            ("token_type_ids", batch.token_type_ids, self.config.type_vocab_size),
            ("position_ids", batch.position_ids, self.config.max_position_embeddings),
        ):
            check_range(name, ids, rows)

    def forward_batch(
        self,
        batch: Batch,
        dropout_key: int | None = None,
        hidden: Container[int] | None = None,
        scores: Container[int] | None = None,
        positions: Array | None = None,
        logits: bool = True,
        keep_cache: bool = True,
        one_each: bool = False,
        decoder: Affine | None = None,
    ) -> tuple[Trace, Any]:
        """A Batch, padded or packed, as `place` gives it; hidden (T, d) and flat scores in the
        trace.

        dropout_key       random.key(seed, step) for training; None: no dropout
        hidden, scores    which of hidden[0…M] and scores[0…M-1] to hand out (the rest None, and not computed where nothing else needs
                          them); None: all
        positions (n,)    rows of which a masked language model's, or a head's of tokens, logits are wanted; None: all
        logits            False: no head at all
        keep_cache        False: for a forward pass alone; the cache comes back as None
        one_each          positions are one row of each sentence, in the batch's order: the last layer computes these alone, unless its
                          hidden states or scores are asked for
        decoder           E (n, d) and c (n,) of the words whose logits a masked language model is to give, in a forward pass alone;
                          None: of all
        """
        c, P, M = self.config, self.parameters, self.config.num_hidden_layers
        keys = _SiteKeys(dropout_key, batch, 3 * M + 2)
        wanted = lambda i, which: which is None or i in which
        with_head = logits and (c.pooler or c.head != "none")
        # Of the last layer a classifier looks at the [CLS] rows alone, a masked language model at
        # the asked ones; without a head, the last layer looked at is the last to run.
        few = with_head and M > 0 and not wanted(M, hidden) and not wanted(M - 1, scores)
        cls_only = few and c.pooler and c.head != "mlm"
        at_words = few and one_each and c.head == "mlm" and not c.pooler
        asking = batch.cls_rows if cls_only else positions if at_words else None
        depth = M if with_head else max([l + 1 for l in range(M) if wanted(l + 1, hidden) or wanted(l, scores)], default=0)
        x, cache_embedding = self._embed(batch, keys(0))
        hidden_seen: list[Any] = [None] * (M + 1)
        scores_seen: list[Any] = [None] * M
        hidden_seen[0] = x if wanted(0, hidden) else None
        layers: list[Any] = []
        trace = Trace(embedding=hidden_seen[0], hidden=hidden_seen, scores=scores_seen)
        for l in range(depth):
            rows = asking if l == M - 1 else None
            keep = encoder.Keep(wanted(l, scores), keep_cache)
            x, scores_seen[l], cache = encoder.forward(x, encoder.LayerArrays.of(P, l), batch, c, keys.of_layer(l), rows, keep)
            hidden_seen[l + 1] = x if wanted(l + 1, hidden) else None
            layers.append(cache)
        classifier = mlm = tokens = None
        if c.pooler and logits:
            first = x if cls_only else x[batch.cls_rows]
            trace.pooled, trace.logits, classifier = heads.classify(first, P, c, keys(3 * M + 1, batch.cls_rows))
        if c.head == "mlm" and logits:
            trace.logits, mlm = heads.predict_words(x, positions if asking is None else None, P, c, decoder)
        if c.head in TOKEN_MAPS and logits:
            trace.logits, tokens = heads.label_tokens(x, positions, P, c, keys(3 * M + 1))
        return trace, Cache(batch, cache_embedding, layers, classifier, mlm, tokens) if keep_cache else None

    def _embed(self, batch: Batch, keys: Array | None) -> tuple[Array, embed_norm.Cache]:
        c, P = self.config, self.parameters
        ids = Ids(batch.input_ids, batch.position_ids, batch.token_type_ids)
        return embed_norm.forward(ids, tables(P), *_embedding_norm(P), c.layer_norm_eps, c.hidden_dropout_prob, keys)

    # ------------------------------------------------------------------------------------------------ backward

    def backward(self, cache: Cache, dtrace: Trace, out: Parameters | None = None, padding_gradient: bool = True) -> Parameters:
        """The gradients of all parameters by name, from the gradient of the loss with respect to
        the trace (absent parts: zero).

        Every row of every table has its true gradient, [PAD]'s too; without `padding_gradient` the
        look-ups of [PAD] (pad_token_id) give its row none, as those of transformers and of the
        released code (`padding_idx`). dtrace's arrays are shaped as the trace's. `out`, a
        Parameters of the model's layout, is overwritten and returned.
        """
        grads = self.parameters.zeros_like() if out is None else out
        if out is not None:
            out.flat.fill(0)
        self.look_up_backward(self.backward_to_look_up(cache, dtrace, grads), cache.embedding.lookup, grads, padding_gradient)
        return grads

    def backward_to_look_up(self, cache: Cache, dtrace: Trace, grads: Parameters) -> Array:
        """All of `backward` but the tables of the embeddings: the gradient of what was looked up in
        them, (T, d)."""
        M = self.config.num_hidden_layers
        dtrace = dtrace.astype(self.parameters.flat.dtype)
        dhidden: list[Any] = list(dtrace.hidden or [None] * (M + 1))
        dscores: list[Any] = list(dtrace.scores or [None] * M)
        if len(dhidden) != M + 1 or len(dscores) != M:
            raise InputError(f"dtrace has {len(dhidden)} hidden and {len(dscores)} scores; the model's trace has {M + 1} and {M}")
        cls_only = bool(cache.layers) and cache.layers[-1].rows is not None
        dx = self._heads_backward(cache, dtrace, cls_only, grads)
        for l in reversed(range(len(cache.layers))):
            if dhidden[l + 1] is not None:  # a loss looks at this layer's output too
                dx = dx + dhidden[l + 1].reshape(dx.shape)
            flat = None if dscores[l] is None else dscores[l].reshape(-1)
            dx = encoder.backward(dx, flat, cache.layers[l], encoder.LayerArrays.of(grads, l))
        for seen in (dhidden[0], dtrace.embedding):
            if seen is not None:
                dx = dx + seen.reshape(dx.shape)
        dgain, dbias = _embedding_norm(grads)
        de, dgain[...], dbias[...] = embed_norm.backward(dx, cache.embedding)
        return de

    def look_up_backward(self, de: Array, cache: embedding.Cache, grads: Parameters, padding_gradient: bool = True) -> None:
        """The gradient of what was looked up, (T, d), added to the tables'; to [PAD]'s row only
        with `padding_gradient`."""
        embedding.backward(de, cache, tables(grads), None if padding_gradient else self.config.pad_token_id)

    def _heads_backward(self, cache: Cache, dtrace: Trace, cls_only: bool, grads: Parameters) -> Array:
        """The gradient of the last layer's output, (T, d), or of its [CLS] rows, (S, d), as far as
        it comes from the heads."""
        of_tokens = cache.mlm is not None or cache.tokens is not None
        if dtrace.logits is not None and not of_tokens and (cache.classifier is None or cache.classifier.classifier is None):
            raise InputError("dtrace has logits; the model has no head that gives any")
        dfirst, dlogits = None, None if of_tokens else dtrace.logits  # of a classifier of sentences
        if cache.classifier is not None and (dlogits is not None or dtrace.pooled is not None):
            dfirst = heads.classify_backward(dtrace.pooled, dlogits, cache.classifier, grads)
            if cls_only:
                return dfirst
        rows = cache.batch.size if cls_only else len(cache.batch.input_ids)
        dx = array_module(self.parameters.flat).zeros((rows, self.config.hidden_size), self.parameters.flat.dtype)
        if dfirst is not None:
            dx[cache.batch.cls_rows] += dfirst
        if cache.mlm is not None and dtrace.logits is not None:
            heads.predict_words_backward(dtrace.logits, cache.mlm, dx, grads)
        if cache.tokens is not None and dtrace.logits is not None:
            heads.label_tokens_backward(dtrace.logits, cache.tokens, dx, self.config, grads)
        return dx


def has_pooler(head: str, tensors: Container[str]) -> bool:
    """Whether a model with such a head, of a checkpoint with such tensors, has a pooler."""
    return head == "classifier" or (head == "none" and "bert.pooler.dense.weight" in tensors)


def tables(P: Parameters) -> Tables:
    """The word, position and segment embeddings. They lie first in the flat array (see `layout`)."""
    return Tables(*(P[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")))


def _embedding_norm(P: Parameters) -> tuple[Array, Array]:
    return P["embeddings.LayerNorm.weight"], P["embeddings.LayerNorm.bias"]


class _SiteKeys:
    """The dropout keys of a step, one a row: called with the site's number (and the rows, else
    all); None in evaluation."""

    def __init__(self, dropout_key: int | None, batch: Batch, sites: int):
        self.keys = None if dropout_key is None else site_keys(dropout_key, batch.row_ids, sites)

    def of_layer(self, l: int) -> Array | None:
        return None if self.keys is None else self.keys[3 * l + 1 : 3 * l + 4]

    def __call__(self, site: int, rows: Array | None = None) -> Array | None:
        if self.keys is None:
            return None
        return self.keys[site] if rows is None else self.keys[site][rows]


def layout(config: Config, extra: Sequence[Slot] = ()) -> Layout:
    """The tensors of a model by their Hugging Face names (a bare encoder's have no `bert.`), then
    `extra` ones."""
    c, d = config, config.hidden_size
    bert = "" if c.head == "none" else "bert."
    slots = [
        Slot(f"{bert}embeddings.word_embeddings.weight", (c.vocab_size, d)),
        Slot(f"{bert}embeddings.position_embeddings.weight", (c.max_position_embeddings, d)),
        Slot(f"{bert}embeddings.token_type_embeddings.weight", (c.type_vocab_size, d)),
        Slot(f"{bert}embeddings.LayerNorm.weight", (d,)),
        Slot(f"{bert}embeddings.LayerNorm.bias", (d,)),
    ]
    for l in range(c.num_hidden_layers):
        slots += encoder.slots(f"{bert}encoder.layer.{l}.", d, c.intermediate_size)
    if c.pooler:
        slots += _dense(f"{bert}pooler.dense", d, d)
    if c.head == "classifier":
        slots += _dense("classifier", c.num_labels, d)
    if c.head in TOKEN_MAPS:
        slots += _dense(TOKEN_MAPS[c.head], c.num_labels, d)
    if c.head == "mlm":
        slots += [Slot("cls.predictions.bias", (c.vocab_size,)), *_dense("cls.predictions.transform.dense", d, d)]
        slots += [Slot(f"cls.predictions.transform.LayerNorm.{name}", (d,)) for name in ("weight", "bias")]
    return Layout([*slots, *extra])


def _check_room(needed: int, config: Config) -> None:
    """InputError where a model's parameters alone are more than this machine's memory."""
    there = memory_bytes()
    if needed > there:
        tables = f"{config.vocab_size} words, {config.max_position_embeddings} positions, {config.type_vocab_size} segments"
        room = f"takes {needed / 1e9:.3g} GB, and this machine has {there / 1e9:.3g} GB"
        raise InputError(f"config: {config.shape} with {tables} {room}; choose smaller sizes")


def _dense(name: str, rows: int, columns: int) -> list[Slot]:
    return [Slot(name + ".weight", (rows, columns)), Slot(name + ".bias", (rows,))]


def _initialise(name: str, view: Array, std: float, seed: int) -> None:
    """Keyed by the tensor's name: a model with another head or depth has the same weights where
    they share a name."""
    if "LayerNorm.weight" in name:
        view[...] = 1
    elif name.endswith(".weight"):
        draw = generator(seed, *name.removeprefix("bert.").encode()).standard_normal(view.shape, dtype=np.float32)
        view[...] = draw * std
