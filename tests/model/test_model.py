"""The whole model: against transformers' BERT, against the twin by the name of every tensor, and over ten steps of distillation."""

import json
from dataclasses import replace

import laws
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitinybert import Trace, audit
from minitinybert.audit import MODEL_CASES, Inputs, assert_close
from minitinybert.audit import models as audit_models
from minitinybert.audit import steps as audit_steps
from minitinybert.commands.shape import parse_shape
from minitinybert.distillation.tokens import SupervisedSpans
from minitinybert.engine.batch import packed, padded
from minitinybert.engine.parallel import Workers
from minitinybert.model.bert import Bert
from minitinybert.model.config import HEADS, Config
from minitinybert.training.cut import split
from minitinybert.training.optim import PRESETS, Adam
from minitinybert.training.shares import Learner
from minitinybert.training.teacher import Running

named = pytest.mark.parametrize("case", MODEL_CASES, ids=lambda case: case.name)
LAWS = [laws.pytorch, laws.the_page, laws.float64_is_kept, laws.a_gradient_for_each_argument_in_its_shape, laws.backward_is_linear]


@named
@pytest.mark.parametrize("law", [*LAWS, laws.nothing_is_changed, laws.zero_gives_zero], ids=lambda law: law.__name__)
@given(data=st.data())
@settings(max_examples=12)
def test_law(case, law, data):
    law(case, laws.HypothesisDraw(data))


@named
@given(data=st.data())
@settings(max_examples=3)
def test_finite_differences(case, data):
    laws.finite_differences(case, laws.HypothesisDraw(data))


@named
def test_stored(case):
    laws.check_stored(case)


# ---------------------------------------------------------------------------------------------------------------- transformers


def drawn_model(draw, head, dtype, **fixed):
    raw = audit_models.draw_config(draw, head, classifier_relu=False, **fixed)
    config = replace(audit_models.make_config(raw), pooler=head in ("none", "classifier"))
    return audit_models.make_model(
        config, Inputs(audit_models.draw_parameters(draw, Bert.new(config).parameters.layout), {}).cast(dtype).arrays
    )


def hugging_face(model):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.BertConfig(**{k: v for k, v in model.config.to_hf().items() if k != "architectures"})
    config._attn_implementation = "eager"
    dtype = {np.dtype("f4"): torch.float32, np.dtype("f8"): torch.float64}[model.parameters.flat.dtype]
    theirs = getattr(transformers, HEADS[model.config.head])(config).to(dtype)
    tensors = {name: torch.from_numpy(np.array(model.parameters[name])) for name in model.parameters}
    unexpected = theirs.load_state_dict(tensors, strict=False)
    assert not unexpected.unexpected_keys
    assert all("decoder" in key or "position_ids" in key for key in unexpected.missing_keys), unexpected.missing_keys
    return theirs.eval()


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)], ids=["float32", "float64"])
@pytest.mark.parametrize("head", HEADS)
@given(data=st.data())
@settings(max_examples=8)
def test_transformers_bert(head, dtype, tolerance, data):
    """Hidden states, pooled output and logits of random models on random batches, masks with holes and one-token sentences among them."""
    torch = pytest.importorskip("torch")
    draw = laws.HypothesisDraw(data)
    model = drawn_model(draw, head, dtype, layer_norm_eps=1e-12)
    theirs = hugging_face(model)
    batch, _ = audit_models.draw_batch(draw, model.config.vocab_size, model.config.type_vocab_size)
    trace, _ = model.forward(**batch)
    with torch.no_grad():
        inputs = {name: torch.from_numpy(np.array(a)).long() for name, a in batch.items()}
        out = theirs(**inputs, output_hidden_states=True)
    expected = {f"hidden.{i}": x for i, x in enumerate(out.hidden_states)}
    if head == "spans":
        out.logits = torch.stack([out.start_logits, out.end_logits], -1)
    expected |= {"pooled": out.pooler_output} if head == "none" else {"logits": out.logits}
    parts = audit_models.trace_parts(trace)
    for name, value in expected.items():
        assert_close(name, parts[name], value.numpy(), tolerance, seed=draw.seed)
        assert abs(parts[name] - value.numpy()).max() <= 10 * tolerance, (name, draw.seed)


@pytest.mark.parametrize("head", ["classifier", "mlm", "tokens"])
def test_transformers_loss_and_gradients(head):
    """The loss transformers computes from labels, and the gradient of every tensor by its name, float64."""
    torch = pytest.importorskip("torch")
    from minitinybert.losses import cross_entropy, mlm

    draw = audit.Draw(np.random.default_rng(7), large=True)
    model = drawn_model(draw, head, np.float64)
    theirs = hugging_face(model)
    batch, _ = audit_models.draw_batch(draw, model.config.vocab_size, model.config.type_vocab_size)
    batch["input_ids"] = np.maximum(batch["input_ids"], 1)  # transformers gives row 0, [PAD]'s, no gradient from being looked up
    shape = batch["input_ids"].shape
    loss_of = cross_entropy if head == "classifier" else mlm
    high = model.config.vocab_size if head == "mlm" else model.config.num_labels
    labels = draw.ids(high, shape[0]) if head == "classifier" else draw.ids(high, *shape)
    if head != "classifier":
        labels[draw.rng.random(shape) < 0.5] = mlm.IGNORE
    trace, cache = model.forward(**batch)
    loss, loss_cache = loss_of.forward(trace.logits, labels)
    grads = model.backward(cache, Trace(logits=loss_of.backward(1.0, loss_cache)))
    out = theirs(**{name: torch.from_numpy(np.array(a)).long() for name, a in batch.items()}, labels=torch.from_numpy(labels))
    out.loss.backward()
    assert float(loss) == pytest.approx(float(out.loss.detach()), rel=1e-12)
    found = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None}
    whole = np.sqrt(sum((g * g).sum() for g in found.values()))
    assert set(found) == set(grads)
    for name, gradient in found.items():
        assert_close(f"d {name}", grads[name], gradient, 1e-9, floor=1e-3 * whole)


def test_transformers_loss_and_gradients_of_spans():
    """(CE(begin) + CE(end))/2 over all places, of sentences without padding: transformers counts padding as places."""
    torch = pytest.importorskip("torch")
    draw = audit.Draw(np.random.default_rng(8), large=True)
    model = drawn_model(draw, "spans", np.float64)
    theirs = hugging_face(model)
    ids, labels = 1 + draw.ids(model.config.vocab_size - 1, 3, 5), draw.ids(5, 3, 2)
    batch = replace(padded(ids), labels=labels)
    trace, cache = model.forward_batch(batch)
    terms = SupervisedSpans()(trace, batch, None, {})
    grads = model.backward(cache, terms.dtrace)
    ends = {name: torch.from_numpy(labels[:, i].copy()) for i, name in enumerate(("start_positions", "end_positions"))}
    out = theirs(torch.from_numpy(ids), **ends)
    out.loss.backward()
    assert float(terms.losses["cross_entropy"]) == pytest.approx(float(out.loss.detach()), rel=1e-12)
    found = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None}
    whole = np.sqrt(sum((g * g).sum() for g in found.values()))
    assert set(found) == set(grads)
    for name, gradient in found.items():
        assert_close(f"d {name}", grads[name], gradient, 1e-9, floor=1e-3 * whole)


# ---------------------------------------------------------------------------------------------------------------- batches


def some_batch(lengths, seed, kind, width=8):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, 9, n).astype(np.int32) for n in lengths]
    types = [rng.integers(0, 2, n).astype(np.int32) for n in lengths]
    if kind == "packed":
        return packed(ids, types)
    rectangle, mask, segments = (rng.integers(0, 2, (len(ids), width)) for _ in range(3))  # anything at all under the mask
    mask[...] = np.arange(width) < np.array(lengths)[:, None]
    for i, n in enumerate(lengths):
        rectangle[i, :n], segments[i, :n] = ids[i], types[i]
    return padded(rectangle, mask, segments)


@pytest.mark.parametrize("dropout_key", [None, 99], ids=["evaluation", "dropout"])
@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4), seed=st.integers(0, 1000))
@settings(max_examples=10)
def test_padding_changes_no_output_and_no_gradient(dropout_key, lengths, seed):
    draw = audit.Draw(np.random.default_rng(seed))
    model = drawn_model(draw, "classifier", np.float64, vocab_size=9, type_vocab_size=2, max_position_embeddings=9)
    tight, wide = some_batch(lengths, seed, "packed"), some_batch(lengths, seed, "padded", width=max(lengths) + 2)
    order, back = tight.sentences, np.argsort(tight.sentences)
    (a, cache_a), (b, cache_b) = model.forward_batch(tight, dropout_key), model.forward_batch(wide, dropout_key)
    assert_close("logits", a.logits[back], b.logits, 1e-10, seed=seed)
    rows = np.ones(len(wide.input_ids), bool) if wide.attention_mask is None else wide.attention_mask
    real = rows.reshape(len(lengths), -1)
    dhidden_b, dhidden_a = [], []
    for x_a, x_b in zip(a.hidden, b.hidden, strict=True):
        by_sentence = x_b.reshape(*real.shape, -1)
        assert_close("hidden", x_a, np.concatenate([by_sentence[s][real[s]] for s in order]), 1e-10, seed=seed)
        dx = draw.normal(*by_sentence.shape) * real[..., None]
        dhidden_b.append(dx.reshape(x_b.shape))
        dhidden_a.append(np.concatenate([dx[s][real[s]] for s in order]))
    dlogits = draw.normal(*b.logits.shape)
    grads_a = model.backward(cache_a, Trace(hidden=dhidden_a, logits=dlogits[order]))
    grads_b = model.backward(cache_b, Trace(hidden=dhidden_b, logits=dlogits))
    whole = np.linalg.norm(grads_a.flat)
    for name in grads_a:
        assert_close(f"d {name}", grads_b[name], grads_a[name], 1e-9, floor=1e-3 * whole, seed=seed)


@pytest.mark.parametrize("kind", ["packed", "padded"])
@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5), parts=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples=10)
def test_a_batch_s_gradient_is_the_sum_over_its_parts(kind, lengths, parts, seed):
    """With dropout on: a sentence's masks are its own, whichever part it stands in."""
    draw = audit.Draw(np.random.default_rng(seed))
    model = drawn_model(draw, "classifier", np.float64, vocab_size=9, type_vocab_size=2, max_position_embeddings=9)
    batch = some_batch(lengths, seed, kind)
    trace, cache = model.forward_batch(batch, 5)
    dlast, dlogits = draw.normal(*trace.hidden[-1].shape), draw.normal(*trace.logits.shape)
    M = model.config.num_hidden_layers
    whole = model.backward(cache, Trace(hidden=[None] * M + [dlast], logits=dlogits))
    total, row, sentence, seen = whole.zeros_like(), 0, 0, []
    for share in split(batch, parts):
        part_trace, part_cache = model.forward_batch(share, 5)
        rows, sentences = slice(row, row + len(share.input_ids)), slice(sentence, sentence + share.size)
        part = model.backward(part_cache, Trace(hidden=[None] * M + [dlast[rows]], logits=dlogits[sentences]))
        total.flat += part.flat
        seen.append(part_trace.logits)
        row, sentence = rows.stop, sentences.stop
    assert_close("logits", np.concatenate(seen), trace.logits, 1e-12, seed=seed)
    assert_close("gradient", total.flat, whole.flat, 1e-11, seed=seed)


def test_embedding_and_hidden_0_are_one_place():
    draw = audit.Draw(np.random.default_rng(0), large=True)
    model = drawn_model(draw, "none", np.float64)
    trace, cache = model.forward(np.array([[1, 2, 3]]))
    d = draw.normal(*trace.embedding.shape)
    M = model.config.num_hidden_layers
    one = model.backward(cache, Trace(embedding=d))
    other = model.backward(cache, Trace(hidden=[d] + [None] * M))
    both = model.backward(cache, Trace(embedding=d, hidden=[d] + [None] * M))
    assert np.array_equal(one.flat, other.flat) and np.allclose(both.flat, 2 * one.flat, rtol=1e-12)
    assert np.linalg.norm(one.flat) > 0.1


def test_a_pooler_beside_a_head_for_words_has_its_own_gradient_and_no_more():
    config = Config(**parse_shape("1L-8D-2H-12F"), vocab_size=11, max_position_embeddings=6, head="mlm")
    model = Bert.new(config, 1, np.float64)
    trace, cache = model.forward(np.arange(8).reshape(2, 4))
    dlogits, dpooled = (np.random.default_rng(2).standard_normal(a.shape) for a in (trace.logits, trace.pooled))
    words, pooled, both = (
        model.backward(cache, d).flat for d in (Trace(logits=dlogits), Trace(pooled=dpooled), Trace(logits=dlogits, pooled=dpooled))
    )
    assert np.allclose(words + pooled, both, atol=1e-12) and abs(words).sum() > 1 and abs(pooled).sum() > 0.01


@pytest.mark.parametrize("dropout_key", [None, 5])
def test_a_row_of_each_sentence_alone_in_the_last_layer(dropout_key):
    """Its logits and the whole gradient are those of a last layer that computes every row; a decoder of some words gives theirs."""
    config = Config(**parse_shape("2L-8D-2H-12F"), vocab_size=11, max_position_embeddings=6, head="mlm", pooler=False)
    model, random = Bert.new(config, 0, np.float64), np.random.default_rng(0)
    batch = packed([random.integers(0, 11, length) for length in (3, 3, 5, 6)], [np.zeros(length, int) for length in (3, 3, 5, 6)])
    rows, dlogits = batch.cls_rows + np.array([0, 2, 4, 1]), random.standard_normal((4, 11))
    arguments = {"dropout_key": dropout_key, "hidden": (), "scores": (), "positions": rows}
    (all_rows, all_cache), (alone, cache) = (model.forward_batch(batch, **arguments, one_each=few) for few in (False, True))
    assert cache.layers[-1].rows is rows and cache.layers[0].rows is None
    np.testing.assert_allclose(alone.logits, all_rows.logits, rtol=1e-12, atol=1e-14)
    expected, gradients = (model.backward(c, Trace(logits=dlogits)) for c in (all_cache, cache))
    for name in gradients:
        np.testing.assert_allclose(gradients[name], expected[name], rtol=1e-9, atol=1e-12, err_msg=name)
    words = np.array([7, 2, 9])
    decoder = model.parameters["bert.embeddings.word_embeddings.weight"][words], model.parameters["cls.predictions.bias"][words]
    some, _ = model.forward_batch(batch, **arguments, keep_cache=False, one_each=True, decoder=decoder)
    np.testing.assert_allclose(some.logits, all_rows.logits[:, words], rtol=1e-12, atol=1e-14)


def test_a_row_of_each_sentence_where_more_is_looked_at():
    """Hidden states of the last layer, or a pooler beside the head, need every row: the logits are of the asked ones all the same."""
    batch = packed([np.array([1, 2, 3]), np.array([4, 5, 6, 7])], [np.zeros(3, int), np.zeros(4, int)])
    rows = batch.cls_rows + 2
    for pooler, hidden in ((True, ()), (False, None)):
        config = Config(**parse_shape("1L-8D-2H-12F"), vocab_size=11, max_position_embeddings=6, head="mlm", pooler=pooler)
        model = Bert.new(config, 0, np.float64)
        expected, _ = model.forward_batch(batch, positions=rows)
        trace, _ = model.forward_batch(batch, hidden=hidden, scores=(), positions=rows, one_each=True)
        assert (trace.logits == expected.logits).all() and (hidden == () or trace.hidden[1].shape == (7, 8))


def test_the_key_s_bias_moves_only_where_scores_are_looked_at():
    """It adds one number to a row of scores, which the softmax does not see, but L_attn does."""
    draw = audit.Draw(np.random.default_rng(0), large=True)
    model = drawn_model(draw, "none", np.float64)
    trace, cache = model.forward(np.array([[1, 2, 3]]))
    name, M = "encoder.layer.0.attention.self.key.bias", model.config.num_hidden_layers
    blind = model.backward(cache, Trace(hidden=[None] * M + [draw.normal(*trace.hidden[-1].shape)]))
    assert np.linalg.norm(blind[name]) < 1e-14 * np.linalg.norm(blind.flat)
    seeing = model.backward(cache, Trace(scores=[draw.normal(*A.shape) for A in trace.scores]))
    assert np.linalg.norm(seeing[name]) > 1e-3 * np.linalg.norm(seeing.flat)


def test_gradients_overwrite_what_is_given():
    draw = audit.Draw(np.random.default_rng(0), large=True)
    model = drawn_model(draw, "mlm", np.float64)
    trace, cache = model.forward(np.array([[1, 2, 0]]))
    dtrace = Trace(logits=draw.normal(*trace.logits.shape), embedding=draw.normal(*trace.embedding.shape))
    plain = model.backward(cache, dtrace)
    out = model.parameters.zeros_like()
    out.flat.fill(7.0)
    assert model.backward(cache, dtrace, out) is out
    assert np.array_equal(out.flat, plain.flat)


# ---------------------------------------------------------------------------------------------------------------- ten steps

STEP_CASES = {case.name: case for case in MODEL_CASES if case.name in ("distill.intermediate", "distill.prediction")}
# A tensor's deviation from the twin, relative. Adam divides each gradient by its own size, so where a gradient is rounding alone its
# direction is too: float32 is asked for what remains over ten such steps of 1e-3.
STEP_TOLERANCES = {np.float64: (1e-9, 1e-9), np.float32: (1e-4, 1e-3)}


@pytest.mark.parametrize("dtype", STEP_TOLERANCES, ids=["float64", "float32"])
@pytest.mark.parametrize("optimizer", sorted(PRESETS))
@pytest.mark.parametrize("name", sorted(STEP_CASES))
def test_ten_steps_of_distillation(name, optimizer, dtype):
    """Losses at each step, the last step's gradients, and the weights after it, against PyTorch; dropout on, rates that change."""
    pytest.importorskip("torch")
    from minitinybert_reference import step as reference_step

    inputs = STEP_CASES[name].draw(audit.Draw(np.random.default_rng(3), True, audit_steps.PLAIN)).cast(np.float32)
    rates = [1e-3 * (i + 1) / 5 if i < 5 else 1e-3 * (10 - i) / 5 for i in range(10)]
    wide = audit_steps.distillation(inputs.cast(np.float64))
    expected, weights, gradients = reference_step.imitate(*wide[:2], inputs.settings["recipe"], wide[2], 8, optimizer, rates)
    start = {name: wide[0].parameters[name].copy() for name in wide[0].parameters}
    history, learner, last = ten_steps(inputs.cast(dtype), 8, optimizer, rates)
    loss_tolerance, weight_tolerance = STEP_TOLERANCES[dtype]
    for i, losses in enumerate(expected):
        assert history[i].keys() == losses.keys()
        for term, value in losses.items():
            assert history[i][term] == pytest.approx(value, rel=loss_tolerance), (i, term)
    whole = np.sqrt(sum((g * g).sum() for g in gradients.values()))
    for tensor in start:
        assert_close(f"d {tensor}", last[tensor], gradients[tensor], loss_tolerance * 10, floor=1e-2 * whole)
        if dtype == np.float64 or np.linalg.norm(gradients[tensor]) > 1e-9 * whole:  # in float32 a zero of mathematics is rounding
            assert_close(tensor, learner.student.parameters[tensor], weights[tensor], weight_tolerance)
    moved = {tensor: np.linalg.norm(weights[tensor] - start[tensor]) for tensor in start}
    assert sum(distance > 1e-3 for distance in moved.values()) > len(moved) / 2


def ten_steps(inputs, seed, optimizer, rates):
    """As train.py does them; the last gradients unclipped."""
    student, teacher, batch = audit_steps.distillation(inputs)
    objective = audit_steps.objective_of(inputs.settings)
    with Workers(1) as workers:
        learner = Learner(student, objective, workers, Running(teacher), seed)
        learner.student.parameters.flat[...] = student.parameters.flat  # the drawn projections, not those the learner starts with
        adam, history = Adam(learner.student.parameters, PRESETS[optimizer]), []
        for i, rate in enumerate(rates):
            losses, grads = learner.gradients(batch, i)
            last = {name: grads[name].copy() for name in grads}
            adam.step(grads, rate)
            history.append({term: float(loss) for term, loss in losses.items()})
    return history, learner, last


@pytest.mark.parametrize("optimizer", sorted(PRESETS))
def test_stored_steps(optimizer):
    """Ten steps in float32 against what PyTorch gave in float64, PyTorch or not."""
    with (audit.stored_folder() / "steps.npz").open("rb") as file, np.load(file) as data:
        entries = {name: data[name] for name in data.files}
    arrays = {name.removeprefix("in/"): a for name, a in entries.items() if name.startswith("in/")}
    inputs = Inputs(arrays, json.loads(str(entries["settings/json"])))
    rates = entries["rates"].tolist()
    history, learner, _ = ten_steps(inputs, int(entries["seed"]), optimizer, rates)
    for term in history[0]:
        assert_close(term, np.array([losses[term] for losses in history]), entries[f"{optimizer}/losses/{term}"], 1e-4)
    for name in learner.student.parameters:
        assert_close(name, learner.student.parameters[name], entries[f"{optimizer}/weights/{name}"], 1e-3)
