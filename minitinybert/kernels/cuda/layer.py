"""model/encoder.py's layer as a whole: its kernels and cuBLAS's products, asked for one after the
other.

What a launch costs the host are Python's objects: an array for each result, a view for each part of
one, a check and a box for each argument. Between its launches a layer needs none of them. What a
direction makes lies in one block of memory, or two: what the backward reads, and what nobody reads
later; kernels and products get addresses in them. A `Table` has the arguments of all kernels of a
direction: what depends on widths and dropout is written once, addresses and counts once a layer,
and a launch says only which kernel and grid. What leaves a layer is an array of its own: the
output, the scores, the gradient of the input.

q, k and v are one product with one matrix W_qkv (3d, d): their weights lie side by side, as
Parameters has them. The biases are added by the kernels that come after the products; where a
gradient goes two ways, the second product adds its own to the first's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from threading import get_ident
from typing import Any, NamedTuple

import cupy
import numpy as np
from cupy.cuda import MemoryPointer, alloc

from ...engine.batch import Batch, Run
from ...engine.device import Array
from ...engine.random import key
from ...model.config import Config
from ...model.encoder import Keep, LayerArrays
from ...ops.dropout import scale_of, threshold_of
from .attention import BY_KEYS, BY_QUERIES, FORWARD, lowest, sizes
from .gelu import _BACKWARD as _GELU_BACKWARD
from .gelu import _FORWARD as _GELU
from .gelu import _ROW_BLOCKS
from .launch import _COLUMNS, BY_COLUMNS, COLUMN_PARTS, Kernel, Table, contiguous, counters, groups_of, parts_dtype, sharing
from .norm import _BACKWARD as _NORM_BACKWARD
from .norm import _FORWARD as _NORM
from .products import Products
from .rows import _SUM

# Of a layer where few rows ask: asking[s] = x[rows[s]], and their keys of the three dropout sites,
# own[i][s] = keys[i][rows[s]].
_TAKE = Kernel(
    "take_rows",
    r"""
extern "C" __global__ void take_rows(const T* x, const u64* keys, const long long* rows, T* asking, u64* own, int all, int D) {
    const long long row = rows[blockIdx.x];
    for (int j = threadIdx.x; j < D; j += 128) asking[(size_t)blockIdx.x * D + j] = x[row * D + j];
    if (keys && threadIdx.x < 3) own[threadIdx.x * gridDim.x + blockIdx.x] = keys[(size_t)threadIdx.x * all + row];
}
""",
)
_GIVE = Kernel(  # dx[rows[s]] += terms[s], no row twice
    "give_rows",
    r"""
extern "C" __global__ void give_rows(const T* terms, const long long* rows, T* dx, int D) {
    const long long row = rows[blockIdx.x];
    for (int j = threadIdx.x; j < D; j += 128) dx[row * D + j] = T(A(dx[row * D + j]) + A(terms[(size_t)blockIdx.x * D + j]));
}
""",
)
_WEIGHTS = ["W_qkv", "b_qkv", "W_o", "b_o", "gain_1", "bias_1", "W_1", "b_1", "W_2", "b_2", "gain_2", "bias_2"]  # as `_addresses` has them
_GRADIENTS = ["d" + name for name in _WEIGHTS]


class Kind(NamedTuple):
    """What a layer's kernels are compiled for, and the constants among their arguments."""

    thread: int  # which has the Table for itself
    device: int
    dtype: np.dtype
    d: int
    f: int
    heads: int
    longest: int  # as long as the longest sentence or longer: a power of two
    eps: float
    tanh: bool
    hidden: int  # of 65536 numbers, how many dropout takes away
    attention: int  # and of the attention's probabilities
    masked: bool
    few: bool  # only some rows ask, one a sentence
    kept: bool  # what the backward reads
    aligned: bool  # what comes from outside lies where four numbers are read at once


class Shape(NamedTuple):
    """How much there is of a batch."""

    T: int
    Q: int  # rows that ask
    sentences: int
    longest: int
    scores: int


class Cache(NamedTuple):
    rows: Array | None
    x: Array
    W: LayerArrays
    starts: Array
    runs: Sequence[Run]
    kind: Kind
    shape: Shape
    kept: MemoryPointer
    places: Mapping[str, int]  # in `kept`


def forward(
    x: Array, W: LayerArrays, batch: Batch, config: Config, keys: Array | None, rows: Array | None, keep: Keep
) -> tuple[Array, Array | None, Cache | None]:
    x, keys, rows, mask = contiguous(x, keys, rows, batch.attention_mask)
    heads, (T, d) = config.num_attention_heads, x.shape
    Q, pairs = (T, batch.row_pairs) if rows is None else (len(rows), T)
    shape = Shape(T, Q, batch.size, batch.longest, heads * pairs)
    dropped = threshold_of(config.hidden_dropout_prob, keys), threshold_of(config.attention_probs_dropout_prob, keys)
    z = cupy.ndarray((Q, d), x.dtype)
    scores = cupy.ndarray((shape.scores,), x.dtype) if keep.scores else None
    at = dict(zip(_WEIGHTS, _addresses(W), strict=True))
    aligned = _aligned(x.dtype, x.data.ptr, *at.values())
    at |= {"x": x.data.ptr, "starts": batch.cls_rows.data.ptr, "taken": _address(rows), "mask": _address(mask), "none": 0}
    at |= {"keys": _address(keys), "z": z.data.ptr, "scores": _address(scores)}
    options = config.layer_norm_eps, config.gelu_approximation == "tanh", *dropped, mask is not None, rows is not None, keep.cache, aligned
    power = max(16, 1 << (shape.longest - 1).bit_length())
    kind = Kind(get_ident(), cupy.cuda.runtime.getDevice(), x.dtype, d, len(W.up[1]), heads, power, *options)
    program = _forward(kind)
    kept = program.run(shape, at)
    cache = None if kept is None else Cache(rows, x, W, batch.cls_rows, batch.runs, kind, shape, kept, program.kept.offsets)
    return z, scores, cache


def backward(dz: Array, dscores: Array | None, cache: Cache, dW: LayerArrays) -> Array:
    kind, shape, kept = cache.kind, cache.shape, cache.kept.ptr
    dz, dscores = contiguous(dz, dscores)
    at = dict(zip((*_WEIGHTS, *_GRADIENTS), (*_addresses(cache.W), *(into := _addresses(dW))), strict=True))
    aligned = kind.aligned and _aligned(kind.dtype, *into, dz.data.ptr)
    dx = cupy.ndarray((shape.T, kind.d), kind.dtype)
    at |= {"x": cache.x.data.ptr, "starts": cache.starts.data.ptr, "taken": _address(cache.rows), "dscores": _address(dscores)}
    at |= {"dz": dz.data.ptr, "dx": dx.data.ptr, "counters": counters().data.ptr}
    at |= {name: kept + place for name, place in cache.places.items()}
    kind = kind._replace(thread=get_ident(), aligned=aligned)
    _backward(kind, dscores is not None).run(shape, at)
    return dx


def masks(cache: Cache) -> tuple[list[Array | None], Array | None, Array | None]:
    kept, (Q, d), start = cache.kept, (cache.shape.Q, cache.kind.d), 0
    at = lambda name, shape, offset=0: cupy.ndarray(shape, bool, kept + cache.places[name] + offset) if name in cache.places else None
    probabilities = []
    for _, n, L in cache.runs:
        shape = (n, cache.kind.heads, 1 if cache.kind.few else L, L)
        probabilities.append(at("keep_0", shape, start))
        start += math.prod(shape)
    return probabilities, at("keep_1", (Q, d)), at("keep_2", (Q, d))


class Block:
    """What lies where in a block of memory, each as far in as an allocation of its own would begin."""

    def __init__(self, sizes: Mapping[str, int]):
        self.offsets, self.size = {}, 0
        for name, size in sizes.items():
            self.offsets[name] = self.size
            self.size += -(-size // 256) * 256

    def take(self, at: dict[str, int]) -> MemoryPointer:
        """The block, its places' addresses in `at`; whoever takes it holds it until the last launch
        that uses it is asked for."""
        memory = alloc(self.size)
        first = memory.ptr
        at |= {name: first + offset for name, offset in self.offsets.items()}
        return memory


class _Forward:
    def __init__(self, kind: Kind):
        self.kind, self.shape = kind, Shape(0, 0, 0, 0, 0)
        d, f, heads, dtype = kind.d, kind.f, kind.heads, kind.dtype
        self.products, self.sizes = Products(dtype), sizes(kind.longest, d // heads, dtype, kind.few)
        constants = {"d": d, "f": f, "heads": heads, "eps": kind.eps, **_strides(kind), **_dropouts(kind)}
        constants |= {"factor": 1 / math.sqrt(d // heads), "lowest": lowest(dtype), "head_key": np.uint64(key(0, 0))}
        self.table = Table(dtype, constants)
        bind = self.table.bind
        self.take = bind(_TAKE, (128, 1), "x keys taken asking keys_0 T d", ALIGNED=0)
        ways = {"ONE": kind.few, "MASK": kind.masked, "DROP": kind.attention > 0}
        self.attention = bind(
            FORWARD,
            (128, 1),
            """q kv b_qkv starts mask keys_0 context scores P keep_0 sentences T heads q_stride kv_stride factor lowest head_key dropped_0
            scale_0""",
            **self.sizes,
            **ways,
        )
        by_rows = {**sharing(d, dtype), "ALIGNED": kind.aligned and d % 4 == 0, "DROP": kind.hidden > 0, "ADD": True}
        norm = lambda arguments: bind(_NORM, (by_rows["BLOCK"], 1), arguments, **by_rows)
        self.norm_1 = norm("a b_o asking gain_1 bias_1 keys_1 y x_hat_1 inverse_1 keep_1 Q d eps dropped scale")
        self.norm_2 = norm("a b_2 y gain_2 bias_2 keys_2 z x_hat_2 inverse_2 keep_2 Q d eps dropped scale")
        self.gelu = bind(_GELU, (BY_COLUMNS, 1), "u b_1 u slope Q f", ALIGNED=kind.aligned and f % 4 == 0, TANH=kind.tanh)

    def _of(self, shape: Shape) -> None:
        """What depends on how much there is: the blocks of memory, the grids."""
        kind, self.shape, size = self.kind, shape, self.kind.dtype.itemsize
        T, Q, sentences, longest, scores = shape
        row, wide = Q * kind.d * size, Q * kind.f * size
        q, kv = (row, 2 * T * kind.d * size) if kind.few else (3 * row, 0)
        always = {"context": row, "y": row} | ({"asking": row} if kind.few else {})
        brief = {"a": row} | ({"keys_0": 24 * Q} if kind.few else {})
        if kind.kept:
            kept = {"q": q, "kv": kv, "u": wide, "slope": wide, "P": scores * size, "x_hat_1": row, "x_hat_2": row}
            kept |= {"inverse_1": Q * size, "inverse_2": Q * size}
            kept |= {"keep_0": scores} if kind.attention else {}
            kept |= {"keep_1": Q * kind.d, "keep_2": Q * kind.d} if kind.hidden else {}
            self.kept, self.brief = Block(always | kept), Block(brief)
        else:  # q, k and v are done with when u comes
            self.kept, self.brief = Block({}), Block(always | brief | {"q": max(q, wide), "kv": kv})
        self.grids = (sentences, kind.heads, self._stretches(longest)), _groups(kind.d, Q, kind.dtype), _columns(kind.f, Q, _ROW_BLOCKS)

    def _stretches(self, longest: int) -> int:
        return 1 if self.kind.few else -(-longest // self.sizes["R"])

    def run(self, shape: Shape, at: dict[str, int]) -> MemoryPointer | None:
        """`at`: the addresses of what comes from outside. The block of what the backward reads, if
        that is to be kept."""
        if shape != self.shape:
            self._of(shape)
        kind, products, table = self.kind, self.products, self.table
        (T, Q, sentences, _, _), d, f, size, few = shape, kind.d, kind.f, kind.dtype.itemsize, kind.few
        kept = self.kept.take(at) if kind.kept else None
        brief = self.brief.take(at)  # until all is asked for
        at |= {"T": T, "Q": Q, "sentences": sentences}
        if not few:
            at |= {"asking": at["x"], "keys_0": at["keys"], "kv": at["q"] + d * size}
        keys = at["keys_0"] if at["keys"] else 0
        at |= {"keys_0": keys, "keys_1": keys and keys + 8 * Q, "keys_2": keys and keys + 16 * Q}
        at.setdefault("u", at["q"])
        for absent in table.names.keys() - at.keys():  # caches that are not kept, masks of what is not dropped
            at[absent] = 0
        table.fill(at)
        stream, (sentence_heads, rows, columns) = cupy.cuda.get_current_stream().ptr, self.grids
        products.begin()
        if few:
            self.take(stream, Q)
            products.x_Wt(at["asking"], at["W_qkv"], at["q"], Q, d, d)
            products.x_Wt(at["x"], at["W_qkv"] + d * d * size, at["kv"], T, d, 2 * d)
        else:
            products.x_Wt(at["x"], at["W_qkv"], at["q"], T, d, 3 * d)
        self.attention(stream, *sentence_heads)
        products.x_Wt(at["context"], at["W_o"], at["a"], Q, d, d)
        self.norm_1(stream, rows)
        products.x_Wt(at["y"], at["W_1"], at["u"], Q, d, f)
        self.gelu(stream, *columns)
        products.x_Wt(at["u"], at["W_2"], at["a"], Q, f, d)
        self.norm_2(stream, rows)
        del brief
        return kept


class _Backward:
    """`more`: the scores have a gradient of their own."""

    def __init__(self, kind: Kind, more: bool):
        self.kind, self.shape = kind, Shape(0, 0, 0, 0, 0)
        d, f, heads, dtype = kind.d, kind.f, kind.heads, kind.dtype
        self.products = Products(dtype)
        self.by_queries_sizes, self.by_keys_sizes = (sizes(kind.longest, d // heads, dtype, few) for few in (kind.few, False))
        constants = {"d": d, "f": f, "heads": heads, "two_d": 2 * d, "three_d": 3 * d, **_strides(kind), **_dropouts(kind)}
        self.table = Table(dtype, {**constants, "factor": 1 / math.sqrt(d // heads)})
        bind = self.table.bind
        drops, in_fours = kind.hidden > 0, kind.aligned and d % 4 == 0
        by_rows = {**sharing(d, dtype), "ALIGNED": in_fours, "DROP": drops, "DROPPED": False, "BIASED": True}
        norm = lambda arguments: bind(_NORM_BACKWARD, (by_rows["BLOCK"], 1), arguments, **by_rows)
        columns = lambda arguments: bind(_COLUMNS, (32, 16), arguments, ALIGNED=0)
        self.norm_2 = norm(f"dz x_hat_2 inverse_2 gain_2 keep_2 dy {'da' if drops else 'dy'} parts Q d scale")
        self.columns_2 = columns("parts dgain_2 dbias_2 db_2 groups three_d d")
        self.norm_1 = norm(f"dy x_hat_1 inverse_1 gain_1 keep_1 dasking {'da' if drops else 'dasking'} parts Q d scale")
        self.columns_1 = columns("parts dgain_1 dbias_1 db_o groups three_d d")
        gelu_in_fours = kind.aligned and f % 4 == 0
        self.gelu = bind(_GELU_BACKWARD, (BY_COLUMNS, 1), "du slope du db_1 parts counters Q f", ALIGNED=gelu_in_fours, BIASED=True)
        ways = {"ONE": kind.few, "DROP": kind.attention > 0}
        self.by_queries = bind(
            BY_QUERIES,
            (128, 1),
            "dcontext kv b_qkv starts P keep_0 dscores dA dq sentences T heads d kv_stride q_stride factor scale_0",
            **self.by_queries_sizes,
            **ways,
            MORE=more,
        )
        self.by_keys = bind(
            BY_KEYS,
            (128, 1),
            "dcontext q b_qkv starts P keep_0 dA dkv sentences T heads d q_stride kv_stride scale_0",
            **self.by_keys_sizes,
            **ways,
        )
        total = lambda arguments: bind(_SUM, (BY_COLUMNS, 1), arguments, ALIGNED=in_fours)  # db_kv begins d numbers behind db_qkv
        if kind.few:
            self.sums = [total("dq db_qkv parts counters Q d"), total("dkv db_kv parts counters T two_d")]
            self.give = bind(_GIVE, (128, 1), "dasking taken dx d", ALIGNED=0)
        else:
            self.sums = [total("dq db_qkv parts counters T three_d")]

    def _of(self, shape: Shape) -> None:
        kind, self.shape, size = self.kind, shape, self.kind.dtype.itemsize
        T, Q, sentences, longest, scores = shape
        d, f = kind.d, kind.f
        row, self.groups = Q * d * size, groups_of(Q, d, kind.dtype)
        of_q = (row, 2 * T * d * size) if kind.few else (3 * row, 0)
        parts = max(self.groups * 3 * d, COLUMN_PARTS * max(f, 3 * d)) * np.dtype(parts_dtype(kind.dtype)).itemsize
        brief = {"dy": row, "da": row, "du": Q * f * size, "dcontext": row, "dA": scores * size, "parts": parts}
        brief |= {"dasking": row} if kind.few else {}
        self.brief = Block(brief | dict(zip(("dq", "dkv"), of_q, strict=True)))
        queries = 1 if kind.few else -(-longest // self.by_queries_sizes["R"])
        self.grid_queries, self.grid_keys = (
            (sentences, kind.heads, stretches) for stretches in (queries, -(-longest // self.by_keys_sizes["R"]))
        )
        sums = [(Q, d), (T, 2 * d)] if kind.few else [(T, 3 * d)]
        self.grids = _groups(d, self.groups, kind.dtype), -(-3 * d // 32), _columns(f, Q, COLUMN_PARTS)
        self.grids_of_sums = [_columns(width, many, COLUMN_PARTS) for many, width in sums]

    def run(self, shape: Shape, at: dict[str, int]) -> None:
        """`at`: the addresses of what comes from outside and of what the forward pass has kept."""
        if shape != self.shape:
            self._of(shape)
        kind, products, table = self.kind, self.products, self.table
        (T, Q, sentences, _, _), d, f, size, few = shape, kind.d, kind.f, kind.dtype.itemsize, kind.few
        brief = self.brief.take(at)  # until all is asked for
        at |= {"T": T, "Q": Q, "sentences": sentences, "groups": self.groups}
        if few:
            at["db_kv"] = at["db_qkv"] + d * size
        else:
            at |= {"asking": at["x"], "dasking": at["dx"], "kv": at["q"] + d * size, "dkv": at["dq"] + d * size}
        for absent in table.names.keys() - at.keys():  # masks of what was not dropped
            at[absent] = 0
        table.fill(at)
        stream, (rows, columns, wide) = cupy.cuda.get_current_stream().ptr, self.grids
        da = at["da"] if kind.hidden else at["dy"]
        products.begin()
        self.norm_2(stream, rows)
        self.columns_2(stream, columns)
        products.dy_W(da, at["W_2"], at["du"], Q, f, d)
        products.dyt_x(da, at["u"], at["dW_2"], Q, f, d)
        self.gelu(stream, *wide)
        products.dy_W(at["du"], at["W_1"], at["dy"], Q, d, f, add=True)  # to what goes round
        products.dyt_x(at["du"], at["y"], at["dW_1"], Q, d, f)
        self.norm_1(stream, rows)
        self.columns_1(stream, columns)
        da = at["da"] if kind.hidden else at["dasking"]
        products.dy_W(da, at["W_o"], at["dcontext"], Q, d, d)
        products.dyt_x(da, at["context"], at["dW_o"], Q, d, d)
        self.by_queries(stream, *self.grid_queries)
        self.by_keys(stream, *self.grid_keys)
        for total, grid in zip(self.sums, self.grids_of_sums, strict=True):
            total(stream, *grid)
        if few:
            W_kv, dW_kv = at["W_qkv"] + d * d * size, at["dW_qkv"] + d * d * size
            products.dy_W(at["dkv"], W_kv, at["dx"], T, d, 2 * d)
            products.dyt_x(at["dkv"], at["x"], dW_kv, T, d, 2 * d)
            products.dy_W(at["dq"], at["W_qkv"], at["dasking"], Q, d, d, add=True)
            products.dyt_x(at["dq"], at["asking"], at["dW_qkv"], Q, d, d)
            self.give(stream, Q)
        else:
            products.dy_W(at["dq"], at["W_qkv"], at["dx"], T, d, 3 * d, add=True)
            products.dyt_x(at["dq"], at["x"], at["dW_qkv"], T, d, 3 * d)
        del brief


_forward, _backward = functools.lru_cache(256)(_Forward), functools.lru_cache(256)(_Backward)


def _strides(kind: Kind) -> dict[str, int]:
    """From row to row of q, and of k and v: in an array each where few ask, else side by side in
    one."""
    return {"q_stride": kind.d, "kv_stride": 2 * kind.d} if kind.few else {"q_stride": 3 * kind.d, "kv_stride": 3 * kind.d}


def _dropouts(kind: Kind) -> dict[str, Any]:
    of_0 = {"dropped_0": kind.attention, "scale_0": scale_of(kind.attention)}
    return {**of_0, "dropped": kind.hidden, "scale": scale_of(kind.hidden)}


def _groups(width: int, rows: int, dtype: np.dtype) -> int:
    """Blocks of a kernel with a group of threads a row."""
    shared = sharing(width, dtype)
    return -(-rows * shared["G"] // shared["BLOCK"])


def _columns(width: int, rows: int, row_blocks: int) -> tuple[int, int]:
    """Blocks of a kernel with four columns a thread."""
    return -(-width // (4 * BY_COLUMNS)), min(rows, row_blocks)


def _address(a: Array | None) -> int:
    return 0 if a is None else a.data.ptr


def _addresses(W: LayerArrays) -> list[int]:
    """Of W_qkv, b_qkv, and the other arrays."""
    (W_q, b_q), (W_k, b_k), (W_v, b_v), output = W.attention
    for q, k, v in ((W_q, W_k, W_v), (b_q, b_k, b_v)):
        if v.data.ptr - k.data.ptr != q.nbytes or k.data.ptr - q.data.ptr != q.nbytes:
            raise ValueError("a layer on a GPU needs query, key and value side by side: make its arrays by Parameters")
    return [a.data.ptr for pair in ((W_q, b_q), output, *W[1:5]) for a in pair]


def _aligned(dtype: np.dtype, *addresses: int) -> bool:
    return not any(address % (4 * dtype.itemsize) for address in addresses)
