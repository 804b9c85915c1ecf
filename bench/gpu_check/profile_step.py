"""Where a distillation step's time goes: TinyBERT4 under BERT base. Wall time, when the host has asked for all, and the device's
time, a line a kernel; GB/s of what moves memory; attention beside PyTorch's; whether the memory pool comes to rest.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minitinybert import machine
from minitinybert.distillation.distill import Intermediate
from minitinybert.engine.batch import Batch, packed
from minitinybert.engine.parallel import Workers
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.ops import add_norm, gelu
from minitinybert.training.optim import PRESETS, Adam, Stretch, norm_factor, scalars_of, update
from minitinybert.training.shares import Learner
from minitinybert.training.teacher import Running

Kernels = dict[str, tuple[int, float]]  # launches and µs, by name


class Profile:
    def __init__(self, args: argparse.Namespace):
        if args.tf32:
            machine.allow_tf32("cuda")
        self.args, self.xp = args, machine.select("cuda")
        self.wait = self.xp.cuda.get_current_stream().synchronize
        self.vocabulary, self.sentences, self.length = (500, 4, 12) if args.quick else (30522, 32, 128)
        make = lambda *sizes: Config(self.vocabulary, *sizes, head="classifier")
        self.student = make(24, 2, 2, 48) if args.quick else make(312, 4, 12, 1200)
        self.teacher = make(32, 4, 2, 64) if args.quick else make(768, 12, 12, 3072)
        self.repeats = 2 if args.quick else 20

    def batch(self, lengths: list[int], seed: int = 0) -> Batch:
        rng = np.random.default_rng(seed)
        ids = [rng.integers(5, self.vocabulary, n) for n in lengths]
        return packed(ids, [np.zeros(n, int) for n in lengths], None, np.zeros(len(lengths), int))

    def best_ms(self, function: Callable[[], object], rounds: int = 5) -> tuple[float, float]:
        """Milliseconds of a call, in rows of calls; and until the host has asked for it."""
        function()
        seconds = []
        for _ in range(rounds):
            self.wait()
            began = time.perf_counter()
            for _ in range(self.repeats):
                function()
            asked = time.perf_counter() - began
            self.wait()
            seconds.append((time.perf_counter() - began, asked))
        wall, asked = (1e3 * min(each) / self.repeats for each in zip(*seconds, strict=True))
        return wall, asked

    # ------------------------------------------------------------------------------------------------------------------ a step

    def steps(self) -> None:
        """A step of full sentences, and one of short ones, kernel by kernel; then the pool."""
        with Workers(1) as workers:
            teacher = Bert.new(self.teacher, 2).to(self.xp).astype(machine.float_type(self.args.teacher_dtype))
            student, objective = Bert.new(self.student, 1).to(self.xp), Intermediate(self.student, self.teacher)
            learner = Learner(student, objective, workers, Running(teacher), seed=3)
            adam = Adam(learner.student.parameters, PRESETS["adamw"], workers)

            def step(batch: Batch, number: int = 0) -> None:
                adam.step(learner.gradients(batch, number)[1], 1e-4)

            short = np.random.default_rng(1).integers(5, min(46, self.length), self.sentences).tolist()
            for name, lengths in (("full length", [self.length] * self.sentences), ("5 to 45 word pieces", short)):
                self._step(name, step, self.batch(lengths))
            self._pool(step)

    def _step(self, name: str, learn: Callable[[Batch], None], batch: Batch) -> None:
        step = lambda: learn(batch)
        began = time.perf_counter()
        step()
        self.wait()
        first = time.perf_counter() - began
        wall, host = self.best_ms(step)
        by, kernels = self._kernels(step)
        busy = sum(us for _, us in kernels.values()) / 1e3
        count = sum(launches for launches, _ in kernels.values())
        print(
            f"{name}, {batch.totals.sentences} sentences, {batch.totals.tokens} tokens: a step {wall:.2f} ms, the host has asked after "
            f"{host:.2f}, the device is at work {busy:.2f} ms in {count} launches ({by}); the first step, which "
            f"compiles, {first:.1f} s",
            flush=True,
        )
        for kernel, (count, us) in sorted(kernels.items(), key=lambda item: -item[1][1])[:25]:
            print(f"    {us:9.1f} µs {100 * us / 1e3 / busy:5.1f} % {count:4d} × {kernel[:110]}")

    def _kernels(self, step: Callable[[], None]) -> tuple[str, Kernels]:
        """Every launch of a step, by PyTorch's profiler: it asks CUPTI, which sees CuPy's too. Without that, ours by events around them."""
        try:
            kernels = self._by_profiler(step)
            why = "it sees no kernel"
        except Exception as error:  # no PyTorch, none with CUDA, no right to use CUPTI
            kernels, why = {}, f"{type(error).__name__}: {str(error).strip()[:200]}"
        if kernels:
            return "by PyTorch's profiler", kernels
        kernels = self._by_events(step)
        if not kernels:
            raise SystemExit(f"no kernel was seen, not by PyTorch's profiler ({why}), nor by events around our launches")
        return f"ours alone, by events around each, for PyTorch's profiler does not work here: {why}", kernels

    def _by_profiler(self, step: Callable[[], None]) -> Kernels:
        import torch
        from torch.profiler import ProfilerActivity, profile

        torch.cuda.init()
        found: dict[str, list[float]] = {}
        for _ in range(2):  # what is asked for while CUPTI starts may be missed
            with profile(activities=[ProfilerActivity.CUDA]) as profiler:
                step()
                self.wait()
            found = defaultdict(list)
            for event in profiler.events():
                if str(event.device_type).endswith("CUDA"):
                    found[event.name].append(event.time_range.elapsed_us())
        return {name: (len(times), sum(times)) for name, times in found.items()}

    def _by_events(self, step: Callable[[], None]) -> Kernels:
        from minitinybert.kernels.cuda import layer
        from minitinybert.kernels.cuda.launch import Kernel, Table

        launch, bind, event, seen = Kernel.launch, Table.bind, self.xp.cuda.Event, []

        def timed(name: str, function: Callable[..., None], *arguments: Any, **options: Any) -> None:
            before, after = event(), event()
            before.record()
            function(*arguments, **options)
            after.record()
            seen.append((name, before, after))

        def bound(table: Table, kernel: Kernel, *arguments: Any, **options: Any) -> Callable[..., None]:
            return functools.partial(timed, kernel.name, bind(table, kernel, *arguments, **options))

        def forget() -> None:  # the launches that layers have bound
            layer._forward.cache_clear()
            layer._backward.cache_clear()

        Kernel.launch = lambda kernel, *a, **b: timed(kernel.name, launch, kernel, *a, **b)  # type: ignore[method-assign,assignment]
        Table.bind = bound  # type: ignore[method-assign,assignment]
        forget()
        try:
            step()
        finally:
            Kernel.launch, Table.bind = launch, bind  # type: ignore[method-assign]
            forget()
        self.wait()
        found = defaultdict(list)
        for name, before, after in seen:
            found[name].append(1e3 * self.xp.cuda.get_elapsed_time(before, after))
        return {name: (len(times), sum(times)) for name, times in found.items()}

    def _pool(self, step: Callable[..., None]) -> None:
        """Batches of other lengths at every step: what the pool asks the driver for is a wait for the device."""
        pool, rng, seen = self.xp.get_default_memory_pool(), np.random.default_rng(5), []
        pool.free_all_blocks()
        with self._mallocs() as count:
            for number in range(6 if self.args.quick else 120):
                step(self.batch(np.minimum(rng.geometric(1 / 22, self.sentences) + 3, self.length).tolist(), number), number)
                seen.append((count(), pool.total_bytes() >> 20))
        at = sorted({0, len(seen) // 8, len(seen) // 4, len(seen) // 2, len(seen) - 1})
        said = "; ".join(f"{number + 1} steps {seen[number][0]} and {seen[number][1]} MiB" for number in at)
        print(f"batches of other lengths at every step, allocations by the driver and size of the pool after {said}", flush=True)

    @contextmanager
    def _mallocs(self) -> Iterator[Callable[[], int]]:
        class Mallocs(self.xp.cuda.MemoryHook):  # type: ignore[name-defined,misc]
            name, count = "mallocs", 0

            def alloc_postprocess(self, **_: int) -> None:
                self.count += 1

        with Mallocs() as hook:
            yield lambda: hook.count

    # ------------------------------------------------------------------------------------------------------------------ its parts

    def passes(self) -> None:
        """GB/s of what each has to read and write; a copy's are what there is."""
        xp, quick = self.xp, self.args.quick
        T, d, f = (64, 32, 64) if quick else (8192, 768, 3072)
        random = lambda *shape: xp.random.standard_normal(shape, np.float32)
        x, wide, b, keys = random(T, d), random(T, f), random(d), xp.arange(T, dtype=np.uint64)
        _, slope = gelu.forward(wide)
        _, cache = add_norm.forward(x, x, b, b, 1e-12, 0.1, keys)
        size = 1000 if quick else 50_000_000
        theta, g, m, v = (random(size) for _ in range(4))
        v, scalars = xp.abs(v), scalars_of(PRESETS["adamw"], 1e-5, 3)
        for name, moved, function in (
            ("copy", 8 * size, lambda: xp.copyto(theta, g)),
            ("gelu forward", 12 * T * f, lambda: gelu.forward(wide)),
            ("gelu backward", 12 * T * f, lambda: gelu.backward(wide, slope)),
            ("add_norm forward", 17 * T * d, lambda: add_norm.forward(x, x, b, b, 1e-12, 0.1, keys)),
            ("add_norm backward", 17 * T * d, lambda: add_norm.backward(x, cache)),
            ("norm of the gradient", 4 * size, lambda: norm_factor(g, 1.0)),
            ("adam", 28 * size, lambda: update(Stretch(theta, g, m, v), scalars, size // 2, None)),
        ):
            ms, _ = self.best_ms(function)
            print(f"    {name:22} {ms:8.3f} ms {moved / ms / 1e6:8.0f} GB/s", flush=True)

    def attention(self) -> None:
        """Of a layer of the teacher, the kernels alone; PyTorch's gives no scores back."""
        from minitinybert.kernels.cuda.attention import BY_KEYS, BY_QUERIES, FORWARD, lowest, sizes

        h, S, L, d = self.teacher.num_attention_heads, self.sentences, self.length, self.teacher.hidden_size
        T, W, starts = S * L, d // h, self.xp.arange(S) * L
        rows, factor = self.xp.random.standard_normal((T, 3 * d), np.float32), 1 / math.sqrt(d // h)
        for dtype in (np.dtype("float32"), np.dtype("float16")):
            qkv, constants = rows.astype(dtype), {**sizes(L, W, dtype), "ONE": 0, "DROP": 0}
            kv, context, P, dA = qkv[:, d:], qkv[:, :d].copy(), self.xp.empty(S * h * L * L, dtype), self.xp.empty(S * h * L * L, dtype)
            launch = lambda kernel, *given, c=constants, t=dtype, **more: functools.partial(
                kernel.launch, (S, h, -(-L // c["R"])), (128,), t, given, **c, **more
            )
            numbers = S, T, h, 3 * d, 3 * d, factor, lowest(dtype), np.uint64(0), np.uint32(0), 1.0
            forward = lambda P, qkv=qkv, kv=kv, context=context, numbers=numbers, launch=launch: launch(
                FORWARD, qkv, kv, None, starts, None, None, context, None, P, None, *numbers, MASK=0
            )
            line = f"    attention {dtype}: forward {self.best_ms(forward(None))[0]:.3f} ms"
            if dtype == np.float32:
                forward(P)()
                dqkv, sizes_of = self.xp.empty_like(qkv), (S, T, h, d, 3 * d, 3 * d)
                of_queries = launch(BY_QUERIES, context, kv, None, starts, P, None, None, dA, dqkv, *sizes_of, factor, 1.0, MORE=0)
                of_keys = launch(BY_KEYS, context, qkv, None, starts, P, None, dA, dqkv[:, d:], *sizes_of, 1.0)
                line += f", backward {sum(self.best_ms(each)[0] for each in (of_queries, of_keys)):.3f} ms"
            print(line + self._theirs(dtype.name, (S, h, L, W)), flush=True)

    def _theirs(self, dtype: str, shape: tuple[int, ...]) -> str:
        try:
            import torch
        except ImportError:
            return ""
        if not torch.cuda.is_available():
            return "; PyTorch has no CUDA here"
        q = torch.randn(3, *shape, device="cuda", dtype=getattr(torch, dtype))
        wait, self.wait = self.wait, torch.cuda.synchronize
        ms, _ = self.best_ms(lambda: torch.nn.functional.scaled_dot_product_attention(*q))
        self.wait = wait
        return f"; PyTorch's forward {ms:.3f} ms"


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--tf32", action="store_true")
    p.add_argument("--teacher-dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    p.add_argument("--quick", action="store_true")
    args = p.parse_args()
    print(f"products {'on tensor cores (TF32)' if args.tf32 else 'in float32'}, teacher in {args.teacher_dtype}")
    profile = Profile(args)
    profile.steps()
    profile.passes()
    profile.attention()
    print("profiled: a step, what moves memory, attention")
    return 0


if __name__ == "__main__":
    sys.exit(main())
