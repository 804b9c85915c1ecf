"""How often a step asks the device for something: kernels, products by cuBLAS, fills. A small model's step is as long as that.

Each count (conftest.py) is of a second step: the first compiles.
"""

from dataclasses import replace

import numpy as np
import pytest

from minitinybert.distillation.distill import Intermediate, Prediction
from minitinybert.distillation.recipes import RECIPES
from minitinybert.distillation.tokens import SpanPrediction, SupervisedSpans
from minitinybert.engine.batch import packed, padded_to
from minitinybert.engine.parallel import Workers
from minitinybert.engine.random import key, site_keys
from minitinybert.model import encoder
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.training.optim import PRESETS, Adam
from minitinybert.training.shares import Learner
from minitinybert.training.teacher import Running

pytestmark = pytest.mark.gpu
STUDENT = Config(2000, 312, 4, 12, 1200, max_position_embeddings=64, head="classifier")  # TinyBERT4, but for its vocabulary
TEACHER = replace(STUDENT, hidden_size=48, num_hidden_layers=12, intermediate_size=96)  # as deep as BERT base: width costs no launches
LENGTHS = (5, 9, 7, 5, 3, 12)


def batch_of(kind, lengths=LENGTHS):
    ids = [np.arange(1, n + 1) for n in lengths]
    arguments = ids, [0 * i for i in ids], None, np.zeros(len(ids), int)
    return packed(*arguments) if kind == "packed" else padded_to(max(lengths), *arguments)


@pytest.mark.parametrize("kind", ["packed", "padded"])
def test_a_layer_forward_and_backward_is_at_most_40(cupy, count, kind):
    batch = batch_of(kind).to(cupy)
    parameters = Bert.new(STUDENT, 1).to(cupy).parameters
    W, dW = (encoder.LayerArrays.of(p, 0) for p in (parameters, parameters.zeros_like()))
    rows = cupy.ones((len(batch.input_ids), STUDENT.hidden_size), np.float32)
    keys = site_keys(key(3), batch.row_ids, 3)

    def both():
        z, scores, cache = encoder.forward(rows, W, batch, STUDENT, keys, None, encoder.Keep())
        encoder.backward(z, scores, cache, dW)

    assert count(both) == 24  # of the 40 it may be


@pytest.mark.parametrize("clip, launches", [("none", 1), ("global", 2), ("tensor", 4)])
def test_the_optimiser_is_one_launch_and_what_clipping_asks_before(cupy, count, clip, launches):
    parameters = Bert.new(STUDENT, 1).to(cupy).parameters
    adam, gradients = Adam(parameters, replace(PRESETS["adamw"], clip=clip)), parameters.zeros_like()
    assert count(lambda: adam.step(gradients, 1e-3)) == launches


WAYS = {  # the batch, the recipe, the teacher's dtype, and what the two steps are
    "mixed lengths": (batch_of("packed"), "default", np.float32, (248, 243)),
    "equal lengths": (batch_of("packed", (7,) * 4), "default", np.float32, (248, 243)),
    "all lengths differ": (batch_of("packed", tuple(range(3, 30))), "default", np.float32, (248, 243)),
    "padded": (batch_of("padded"), "default", np.float32, (248, 243)),
    "float16": (batch_of("packed"), "default", np.float16, (248, 243)),
    "as released": (batch_of("padded"), "huawei-2019", np.float16, (265, 249)),
}


@pytest.mark.parametrize("objective", ["intermediate", "prediction"])
@pytest.mark.parametrize("way", WAYS)
def test_a_distillation_step_is_as_many_whatever_its_lengths(cupy, count, objective, way):
    """Teacher forward, student forward and backward, losses, optimiser: of TinyBERT4 and a teacher of 12 layers. As released, padding
    counts and is found again in the scores, the maps have a bias, the teacher has dropout, every tensor is clipped by itself."""
    batch, name, dtype, launches = WAYS[way]
    recipe = RECIPES[name]
    made = Prediction(recipe) if objective == "prediction" else Intermediate(STUDENT, TEACHER, recipe)
    with Workers(1) as workers:
        teacher = Bert.new(TEACHER, 2).to(cupy).astype(dtype)
        learner = Learner(Bert.new(STUDENT, 1).to(cupy), made, workers, Running(teacher, recipe.teacher_dropout), seed=3)
        adam = Adam(learner.student.parameters, PRESETS[recipe.optimizer], workers, learner.untouched)
        assert count(lambda: adam.step(learner.gradients(batch, 0)[1], 1e-3)) == launches[objective == "prediction"]


@pytest.mark.parametrize("objective", [SpanPrediction(), SupervisedSpans()], ids=["prediction", "labels"])
def test_a_step_of_spans_is_as_many_whatever_its_lengths(cupy, count, objective):
    """The answers of all sentences are compared at once, however many lengths they have."""
    student, teacher = (replace(config, head="spans", pooler=False) for config in (STUDENT, TEACHER))
    counts = set()
    with Workers(1) as workers:
        learner = Learner(Bert.new(student, 1).to(cupy), objective, workers, Running(Bert.new(teacher, 2).to(cupy)), seed=3)
        for lengths in (LENGTHS, (7,) * 4, tuple(range(3, 30))):
            batch = replace(batch_of("packed", lengths), labels=np.zeros((len(lengths), 2), int))
            counts.add(count(lambda batch=batch: learner.gradients(batch, 0)))
    assert len(counts) == 1, counts


def test_of_a_forward_pass_alone_no_scores_or_probabilities_are_written(cupy):
    config = replace(TEACHER, num_hidden_layers=2, num_attention_heads=12)
    model, batch = Bert.new(config, 1).to(cupy), batch_of("packed", (60,) * 40)
    share, scores = model.place(batch), 4 * 12 * batch.totals.pairs

    def written(**options):
        pool = cupy.cuda.MemoryPool()
        with cupy.cuda.using_allocator(pool.malloc):
            model.forward_batch(share, hidden=(), **options)
        return pool.total_bytes()

    assert written(scores=(), keep_cache=False) < scores < written(scores=(0,), keep_cache=False) < 3 * scores < written()
