"""A step stays on the device: nothing waits for it, nothing is copied but the batch, NumPy works on none of its arrays."""

import contextlib
import warnings
from dataclasses import replace

import numpy as np
import pytest
from training.test_loop import CONFIG, OPTIONS, examples

from minitinybert.data.masking import Masking, mask_batch
from minitinybert.distillation.distill import Intermediate, Prediction
from minitinybert.distillation.objectives import MaskedLM, Supervised
from minitinybert.distillation.recipes import RECIPES
from minitinybert.engine.parallel import Workers
from minitinybert.errors import InputError
from minitinybert.model.bert import Bert
from minitinybert.training import evaluation, loop
from minitinybert.training.loop import train
from minitinybert.training.optim import PRESETS, Adam
from minitinybert.training.shares import Learner
from minitinybert.training.teacher import Running

pytestmark = pytest.mark.gpu
OPERATORS = {
    np.add,
    np.subtract,
    np.multiply,
    np.true_divide,
    np.negative,
    np.matmul,
    np.greater,
    np.greater_equal,
    np.bitwise_and,
    np.equal,
}
OPERATORS |= {np.right_shift, np.bitwise_xor, np.not_equal}
TEACHER = replace(CONFIG, hidden_size=16, num_hidden_layers=4)


@pytest.fixture
def watched(cupy, monkeypatch):
    """A context that counts copies to the device, and within which CuPy raises where it would wait for the device or be called by NumPy.

    CuPy sends host memory through pinned memory, and asks the allocator for it that a user may set.
    """
    import cupyx

    @contextlib.contextmanager
    def watch():
        copies = []

        def pinned(size):
            copies.append(size)
            return cupy.cuda.PinnedMemoryPointer(cupy.cuda.PinnedMemory(size), 0)

        def refuse(array, function, *rest, **more):
            raise AssertionError(f"NumPy's {function} was called on a device array")

        def ufunc(array, function, *rest, **more):  # CuPy's own operators ask by NumPy's names
            return own(array, function, *rest, **more) if function in OPERATORS else refuse(array, function)

        own = cupy.ndarray.__array_ufunc__

        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # allow_synchronize sees what CuPy can see of its own accord, and says so
            patch.setattr(cupy.ndarray, "__array_ufunc__", ufunc)
            patch.setattr(cupy.ndarray, "__array_function__", refuse)
            cupy.cuda.set_pinned_memory_allocator(pinned)
            try:
                with cupyx.allow_synchronize(False):
                    yield copies
            finally:
                cupy.cuda.set_pinned_memory_allocator()

    return watch


def test_the_watch_sees(cupy, watched):
    import cupyx

    x = cupy.arange(4.0)
    with watched() as copies:
        for wait in (lambda: float(x[0]), lambda: bool(x[0]), lambda: x[0].item(), lambda: x.get(), lambda: x[x > 1]):
            with pytest.raises(cupyx.DeviceSynchronized):
                wait()
        with pytest.raises(AssertionError, match="exp"):
            np.exp(x)
        assert not copies
        x[np.array([1, 2])]
        cupy.asarray(np.ones(3))
        assert len(copies) == 2
    assert float(np.exp(x)[0]) == 1


STEPS = {
    "supervised": (CONFIG, Supervised, "packed", "adamw"),
    "mlm": (replace(CONFIG, head="mlm", pooler=False), MaskedLM, "masked", "adamw"),
    "intermediate": (CONFIG, lambda: Intermediate(CONFIG, TEACHER), "packed", "adamw"),
    "intermediate, padding counted": (CONFIG, lambda: Intermediate(CONFIG, TEACHER, RECIPES["huawei-2019"]), "padded", "bert-adam"),
    "prediction": (CONFIG, Prediction, "packed", "bert-adam"),
}


def batch_of(kind, examples, indices):
    batch = replace(examples, pad_to=12 if kind == "padded" else None).batch(indices)
    return mask_batch(batch, Masking(4, 30, (0, 2, 3)), 3) if kind == "masked" else batch


@pytest.mark.parametrize("name", STEPS)
def test_a_step_copies_its_batch_at_once_and_nothing_else(cupy, watched, name):
    config, objective, kind, preset = STEPS[name]
    batch = batch_of(kind, examples(), np.arange(9))
    with Workers(1) as workers:
        teacher = Running(Bert.new(TEACHER, 9).to(cupy))
        learner = Learner(Bert.new(config, 7).to(cupy), objective(), workers, teacher, seed=3)
        adam = Adam(learner.student.parameters, PRESETS[preset])
        with watched() as copies:
            for step in range(2):
                losses, gradients = learner.gradients(batch, step)
                adam.step(gradients, 1e-3)
            total = {loss: 0.0 + value + value for loss, value in losses.items()}  # as the loop keeps them
        assert len(copies) == 2  # of two steps
        assert all(value.dtype == np.float32 for value in (*total.values(), gradients.flat, adam.parameters.flat, adam.m.flat, adam.v.flat))


def test_the_loop_reads_losses_only_where_it_logs(cupy, monkeypatch, tmp_path):
    """Of 12 steps, after 6 and after 12, those of six at once; the checkpoints fall on these."""
    done, read, step = [], loop.to_host, Adam.step
    monkeypatch.setattr(cupy.ndarray, "__float__", None)
    monkeypatch.setattr(loop, "to_host", lambda x: (done.append("read") if x.shape == (6,) else None) or read(x))
    monkeypatch.setattr(Adam, "step", lambda *given: done.append("step") or step(*given))
    with Workers(1) as workers:
        learner = Learner(Bert.new(CONFIG, 7).to(cupy), Supervised(), workers, seed=3)
        train(learner, examples(), replace(OPTIONS, log_every=6, save_every=100, epochs=2), tmp_path / "out")
    assert done == [*["step"] * 6, "read"] * 2


def test_ids_are_checked_before_they_leave_the_host(cupy):
    """A device would read whatever lies there."""
    small = replace(CONFIG, vocab_size=20)
    with Workers(1) as workers:
        model = Bert.new(small, 1).to(cupy)
        with pytest.raises(InputError, match="model has rows 0 to 19"):
            evaluation.logits(model, examples(), workers)
        for student, teacher in ((small, CONFIG), (CONFIG, small)):
            learner = Learner(Bert.new(student, 1).to(cupy), Prediction(), workers, Running(Bert.new(teacher, 2).to(cupy)))
            with pytest.raises(InputError, match="model has rows 0 to 19"):
                learner.gradients(examples().batch(np.arange(22)), 0)
