"""What data-parallel training costs on n GPUs, by arithmetic: python bench/mpi.py --step-ms 100 --shape 4L-312D-12H-1200F

Nothing is measured here, and no one has run minitinybert on such machines: step time and bandwidths are yours to give. See mpi.md.
"""

from __future__ import annotations

import argparse

from tabulate import tabulate

from minitinybert.commands.shape import parse_shape
from minitinybert.model.bert import layout
from minitinybert.model.config import Config


def gradient_bytes(shape: str, vocab_size: int = 30522, head: str = "none") -> int:
    """The flat gradient as it is summed: float32, with the padding between tensors."""
    return 4 * layout(Config(vocab_size=vocab_size, head=head, pooler=head == "classifier", **parse_shape(shape))).size


def ring_seconds(n_bytes: float, n: int, bandwidth: float, latency: float) -> float:
    """A ring all-reduce of n ranks: 2 (n − 1) messages a rank, of 1/n of the bytes each."""
    return 2 * (n - 1) * (n_bytes / n / bandwidth + latency) if n > 1 else 0.0


def all_reduce_seconds(n_bytes: float, n: int, a: argparse.Namespace) -> float:
    """Within a machine by its own links; across machines a second ring, in which each GPU sends its 1/g of the bytes over its share."""
    g = min(n, a.gpus_per_machine)
    machines = -(-n // a.gpus_per_machine)
    inside = ring_seconds(n_bytes, g, a.inside_gb * 1e9, a.inside_us * 1e-6)
    return inside + ring_seconds(n_bytes / g, machines, a.across_gb * 1e9 / g, a.across_us * 1e-6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--shape", nargs="+", default=["4L-312D-12H-1200F", "6L-768D-12H-3072F", "12L-768D-12H-3072F"])
    parser.add_argument("--step-ms", type=float, nargs="+", default=[3.0, 10.0, 30.0, 100.0], help="of one GPU on its share of the batch")
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--gpus-per-machine", type=int, default=8)
    parser.add_argument("--inside-gb", type=float, default=200.0, help="GB/s of a GPU's links within a machine (assumed)")
    parser.add_argument("--across-gb", type=float, default=25.0, help="GB/s of a machine's network (assumed)")
    parser.add_argument("--inside-us", type=float, default=5.0, help="latency of a message (assumed)")
    parser.add_argument("--across-us", type=float, default=20.0)
    a = parser.parse_args()
    rows = []
    for shape in a.shape:
        n_bytes = gradient_bytes(shape)
        for n in a.gpus:
            t = all_reduce_seconds(n_bytes, n, a)
            rows.append([shape, f"{n_bytes / 1e6:.1f}", n, f"{1e3 * t:.2f}", *(f"{s / (s + 1e3 * t):.0%}" for s in a.step_ms)])
    print(tabulate(rows, ["student", "MB", "GPUs", "all-reduce ms", *(f"of {s:g} ms steps" for s in a.step_ms)], disable_numparse=True))


if __name__ == "__main__":
    main()
