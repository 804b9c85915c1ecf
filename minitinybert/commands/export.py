"""A trained model as an ONNX graph, for programs that answer and do not train: in 8 bits onnxruntime
is quicker at one sentence than anything here.

    out/model.onnx         float32: input_ids, attention_mask, token_type_ids (B, L) int64 -> logits, or what else `graph` says
    out/model_int8.onnx    the same with 8-bit weights (onnxruntime's dynamic quantisation)
    out/config.json, tokenizer.json, …    as `optimum`, or a program of yours, wants them beside it

The graph is the forward pass of model/bert.py without dropout, operation for operation.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import extras
from ..data.batching import EncodedExamples, by_length
from ..data.glue import Task
from ..data.squad import Windows
from ..data.tagging import TaggedExamples
from ..errors import InputError
from ..files import building, check_apart, write_json
from ..machine import Machine
from ..model.bert import Bert
from ..model.config import TOKEN_MAPS, Config
from ..progress import log
from .answer import judged_model
from .kinds import KINDS
from .task_data import judged_splits

TOLERANCE = 1e-4  # between our logits and the graph's, of logits of about 1
_OPSET = 20  # the first that has Gelu
_ROWS = 2048  # tokens a batch that is judged


def export(
    model: str, out: Path, int8: bool = False, task: Task | None = None, data: Path | None = None, max_length: int | None = None
) -> dict[str, Any]:
    """Write `model` to the new directory `out`, which appears whole or not at all. Returns the files'
    sizes, the largest difference between our logits and the graph's, and with a task and its data
    the dev metrics of each file beside ours.

    InputError where onnx and onnxruntime are not there, `out` is, or the graph's logits are not
    ours.
    """
    onnxruntime = _libraries()
    check_apart(out, model)
    if Path(out).exists():
        raise InputError(f"--out {out}: is there already; name another directory")
    loaded = Bert.load(model)
    report: dict[str, Any] = {"model": model, "out": str(out)}
    with building(Path(out)) as beside:
        files = {"float32": beside / "model.onnx"}
        files["float32"].write_bytes(graph(loaded).SerializeToString())
        report["difference"] = _difference(loaded, _session(onnxruntime, files["float32"]))
        if int8:
            files["int8"] = beside / "model_int8.onnx"
            _quantise(files["float32"], files["int8"])
        for name, source in loaded.tokenizer_files.items():
            shutil.copyfile(source, beside / name)
        write_json(beside / "config.json", loaded.config.to_hf())
        report["bytes"] = {name: file.stat().st_size for name, file in files.items()}
        if task is not None and data is not None:
            report["dev"] = _scores(model, task, data, max_length, {name: _session(onnxruntime, file) for name, file in files.items()})
    return report


def _libraries() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise InputError(f"export needs {error.name}; {extras.hint('onnx')}") from None
    return onnxruntime


# ---------------------------------------------------------------------------------------------------------------------- the graph


class _Builder:
    """Nodes one after the other; `add` gives the name of what a node makes."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.tensors: dict[str, np.ndarray] = {}

    def add(self, operation: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = name or f"{operation}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, inputs, [name], **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        array = np.asarray(value, dtype)
        return self.hold(f"constant_{array.dtype}_{array.tolist()}", array)

    def hold(self, name: str, array: np.ndarray) -> str:
        self.tensors.setdefault(name, np.asarray(array, order="C"))  # ascontiguousarray has no scalars
        return name


def graph(model: Bert) -> Any:
    """The model's forward pass as an onnx.ModelProto.

    Outputs, by transformers' names: logits (B, C) of a classifier of texts, (B, L, C) of one of
    words, (B, L, V) of a masked language model; start_logits and end_logits (B, L) of answers in a
    text; of a bare encoder last_hidden_state (B, L, d), and pooler_output (B, d) where it has a
    pooler.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    b, c = _Builder(), model.config
    x = _embeddings(b, model)
    mask = b.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    unseen = b.add("Sub", mask, b.constant(1.0, np.float32))  # 0 for a real token, −1 for padding, which gets no attention
    bias = b.add("Unsqueeze", b.add("Mul", unseen, b.constant(1e9, np.float32)), b.constant([1, 2]))
    for l in range(c.num_hidden_layers):
        x = _layer(b, model, f"encoder.layer.{l}.", x, bias)
    outputs = _heads(b, model, x)
    d = {"last_hidden_state": [c.hidden_size], "pooler_output": [c.hidden_size], "start_logits": [], "end_logits": []}
    sizes = {**d, "logits": [c.vocab_size if c.head == "mlm" else c.num_labels]}
    shapes: dict[str, list[str | int | None]] = {
        name: ["batch", *(["length"] if _per_token(name, c) else []), *sizes[name]] for name in outputs
    }
    made = helper.make_graph(
        b.nodes,
        "bert",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in INPUTS],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(array, name) for name, array in b.tensors.items()],
    )
    proto = helper.make_model(made, producer_name="minitinybert", opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)
    checker.check_model(proto)
    return proto


INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_ENDS = ("start_logits", "end_logits")  # of a head of spans: its two logits of a token


def _per_token(name: str, config: Config) -> bool:
    """Whether an output has an entry for each token, and not one for each text."""
    return name in ("last_hidden_state", *_ENDS) or (name == "logits" and config.head in ("mlm", "tokens"))


def _embeddings(b: _Builder, model: Bert) -> str:
    length = b.add("Shape", "input_ids", start=1, end=2)  # [L]
    table = lambda name: b.hold(name, model.parameters[f"embeddings.{name}_embeddings.weight"].astype(np.float32))
    words, types = b.add("Gather", table("word"), "input_ids"), b.add("Gather", table("token_type"), "token_type_ids")
    positions = b.add("Slice", table("position"), b.constant([0]), length, b.constant([0]))
    summed = b.add("Add", b.add("Add", words, types), positions)
    return _norm(b, model, "embeddings.LayerNorm", summed)


def _layer(b: _Builder, model: Bert, prefix: str, x: str, bias: str) -> str:
    h, d = model.config.num_attention_heads, model.config.hidden_size
    split = b.constant([0, 0, h, d // h])  # 0: as it was
    of = lambda name: b.add("Reshape", _dense(b, model, f"{prefix}attention.self.{name}", x), split)
    heads = lambda name, order: b.add("Transpose", of(name), perm=order)
    q, k, v = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]), heads("value", [0, 2, 1, 3])
    scores = b.add("Mul", b.add("MatMul", q, k), b.constant(1 / math.sqrt(d // h), np.float32))
    weights = b.add("Softmax", b.add("Add", scores, bias), axis=-1)
    context = b.add("Reshape", b.add("Transpose", b.add("MatMul", weights, v), perm=[0, 2, 1, 3]), b.constant([0, 0, d]))
    a = _dense(b, model, f"{prefix}attention.output.dense", context)
    y = _norm(b, model, f"{prefix}attention.output.LayerNorm", b.add("Add", x, a))
    w = _dense(b, model, f"{prefix}output.dense", _gelu(b, model, _dense(b, model, f"{prefix}intermediate.dense", y)))
    return _norm(b, model, f"{prefix}output.LayerNorm", b.add("Add", y, w))


def _heads(b: _Builder, model: Bert, x: str) -> list[str]:
    c = model.config
    if c.head == "mlm":
        t = _gelu(b, model, _dense(b, model, "cls.predictions.transform.dense", x))
        t = _norm(b, model, "cls.predictions.transform.LayerNorm", t)
        decoder = b.add("Transpose", "word", perm=[1, 0])
        b.add("Add", b.add("MatMul", t, decoder), b.hold("cls.predictions.bias", model.parameters["cls.predictions.bias"]), name="logits")
        return ["logits"]
    if c.head == "tokens":
        return [_dense(b, model, TOKEN_MAPS[c.head], x, "logits")]
    if c.head == "spans":
        both = _dense(b, model, TOKEN_MAPS[c.head], x)
        return [b.add("Gather", both, b.constant(i), axis=2, name=name) for i, name in enumerate(_ENDS)]
    names = []
    if c.head == "none":
        names.append(b.add("Identity", x, name="last_hidden_state"))
    if c.pooler:
        first = b.add("Gather", x, b.constant(0), axis=1)
        pooled = b.add("Tanh", _dense(b, model, "pooler.dense", first), name="" if c.head == "classifier" else "pooler_output")
        names += [] if c.head == "classifier" else [pooled]
        if c.head == "classifier":
            names.append(_dense(b, model, "classifier", b.add("Relu", pooled) if c.classifier_relu else pooled, "logits"))
    return names


def _dense(b: _Builder, model: Bert, name: str, x: str, out: str = "") -> str:
    weight, bias = (model.parameters[f"{name}.{part}"].astype(np.float32) for part in ("weight", "bias"))
    return b.add("Add", b.add("MatMul", x, b.hold(name + ".weight", weight.T)), b.hold(name + ".bias", bias), name=out)


def _norm(b: _Builder, model: Bert, name: str, x: str) -> str:
    gain, bias = (b.hold(f"{name}.{part}", model.parameters[f"{name}.{part}"].astype(np.float32)) for part in ("weight", "bias"))
    return b.add("LayerNormalization", x, gain, bias, axis=-1, epsilon=model.config.layer_norm_eps)


def _gelu(b: _Builder, model: Bert, x: str) -> str:
    return b.add("Gelu", x, approximate=model.config.gelu_approximation)


# ------------------------------------------------------------------------------------------------------------ running and judging


def _session(onnxruntime: Any, file: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _quantise(source: Path, destination: Path) -> None:
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # it advises a pre-processing that this graph does not need
    try:
        quantize_dynamic(source, destination, weight_type=QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)


def _difference(model: Bert, session: Any) -> float:
    """The largest one between our outputs and the graph's, on padded sentences of random words."""
    rng, c = np.random.default_rng(0), model.config
    B, L = 3, min(12, c.max_position_embeddings)
    ids, types = rng.integers(0, c.vocab_size, (B, L)), rng.integers(0, c.type_vocab_size, (B, L))
    mask = (np.arange(L) < np.array([[L], [max(1, L // 2)], [1]])).astype(np.int64)
    trace, _ = model.forward(ids, mask, types)
    ours = {"logits": trace.logits, "last_hidden_state": trace.hidden[-1], "pooler_output": trace.pooled}  # type: ignore[index]
    if c.head == "spans":
        ours |= {name: trace.logits[..., i] for i, name in enumerate(_ENDS)}  # type: ignore[index]
    names = [output.name for output in session.get_outputs()]
    theirs = dict(zip(names, session.run(names, dict(zip(INPUTS, (ids, mask, types), strict=True))), strict=True))
    real = lambda side, name: side[name][mask.astype(bool)] if _per_token(name, c) else side[name]
    worst = max(float(np.abs(real(theirs, name) - real(ours, name)).max()) for name in names)
    scale = max(1.0, *(float(np.abs(real(ours, name)).max()) for name in names))
    if not worst <= TOLERANCE * scale:
        raise InputError(f"the graph's outputs differ from the model's by {worst:.2g}; please report this with your version of onnxruntime")
    return worst


def _scores(model: str, task: Task, data: Path, max_length: int | None, sessions: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """{ours and each file: {dev split: metrics}}."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    kind = KINDS[task.head]
    with Machine() as machine:
        judged, files = judged_model(model, task, data, machine, max_length)
        for split in judged_splits(task, data):
            examples = files.split(split)
            answers = {"minitinybert": kind.ask(judged, examples, machine.workers)}
            answers |= {name: _logits(session, examples, files.tokenizer.pad_id) for name, session in sessions.items()}
            for name, values in answers.items():
                found.setdefault(name, {})[split] = kind.judge(values, task, examples, judged.config).metrics
                log(f"{name} on {split}: " + ", ".join(f"{metric} {value:.4f}" for metric, value in found[name][split].items()))
    return found


def _logits(session: Any, examples: EncodedExamples, pad_id: int) -> Any:
    """Float32 of a graph, in the examples' order: (n, C) of texts; of words n arrays (w, C), of spans n
    arrays (L, 2), as training/evaluation.py has them."""
    names = [output.name for output in session.get_outputs()]
    rows: dict[int, np.ndarray] = {}
    for indices in by_length(examples.lengths(), _ROWS):
        ids, mask, types = _rectangle(examples, indices, pad_id)
        outputs = session.run(names, dict(zip(INPUTS, (ids, mask, types), strict=True)))
        values = np.stack(outputs, axis=-1) if names == list(_ENDS) else outputs[0]
        rows.update(zip(indices.tolist(), values, strict=True))
    own = [rows[i] for i in range(len(examples))]
    if isinstance(examples, TaggedExamples):
        return [z[places] for z, places in zip(own, examples.places, strict=True)]
    if isinstance(examples, Windows):
        return [z[: len(ids)] for z, ids in zip(own, examples.input_ids, strict=True)]
    return np.stack(own)


def _rectangle(examples: EncodedExamples, indices: Sequence[int] | np.ndarray, pad_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some examples as the graph's three inputs, padded to the longest."""
    longest = max(len(examples.input_ids[i]) for i in indices)
    ids = np.full((len(indices), longest), pad_id, np.int64)
    mask, types = np.zeros_like(ids), np.zeros_like(ids)
    for row, i in enumerate(indices):
        n = len(examples.input_ids[i])
        ids[row, :n], mask[row, :n], types[row, :n] = examples.input_ids[i], 1, examples.token_type_ids[i]
    return ids, mask, types
