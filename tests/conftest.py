"""For every test: examples that are the same at each run (of HYPOTHESIS_PROFILE=afresh those of --hypothesis-seed), one BLAS thread
(the arrays are small), no transformers telemetry."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MINITINYBERT_NUMBA", "0")  # tests are of the formulas, where nobody says otherwise

if os.environ["MINITINYBERT_NUMBA"] != "0":
    from minitinybert import machine

    machine.select("cpu")

from hypothesis import HealthCheck, settings  # noqa: E402  (after the thread counts, which are read at import)

settings.register_profile(
    "deterministic",
    derandomize=True,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("few", parent=settings.get_profile("deterministic"), max_examples=5)
settings.register_profile("afresh", parent=settings.get_profile("deterministic"), derandomize=False, database=None)
settings.register_profile("thorough", parent=settings.get_profile("deterministic"), derandomize=False, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "deterministic"))
