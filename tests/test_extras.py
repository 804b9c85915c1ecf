"""What messages tell users to install: the extra that fits the CUDA there is, and nowhere a second CuPy beside the one there is."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from minitinybert import extras
from minitinybert import machine as machines
from minitinybert.engine import ranks
from minitinybert.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
CUDA12, CUDA13 = "pip install 'minitinybert[cuda12]'", "pip install 'minitinybert[cuda13]'"
AS_BEFORE = "install it the way cupy was installed"
UNINSTALL = "pip uninstall cupy-cuda12x cupy-cuda13x, then "


@pytest.fixture
def machine(monkeypatch):
    """machine(packages, driver): these packages hold a folder cupy, and the driver is of that CUDA (0: there is none)."""

    def machine(packages, driver=0):
        monkeypatch.setattr(extras.metadata, "packages_distributions", lambda: {"cupy": packages} if packages else {})
        monkeypatch.setattr(extras, "_driver", lambda: driver)

    return machine


@pytest.mark.parametrize(
    "packages, driver, module, expected",
    [
        ([], 13, "cupy", CUDA13),
        ([], 14, "cupy", CUDA13),
        ([], 12, "cupy", CUDA12),
        ([], 0, "cupy", f"{CUDA13}, or [cuda12] for a driver of CUDA 12"),
        (["cupy-cuda12x"], 13, "cupy", CUDA12),  # by the CuPy there is, not by the driver
        (["cupy-cuda13x"], 12, "cupy", CUDA13),
        (["cupy-cuda12x"], 13, "ml_dtypes", CUDA12),
        (["cupy-cuda13x", "cupy-cuda13x"], 13, "ml_dtypes", CUDA13),  # packages_distributions may name one twice
        (["cupy-cuda12x"], 13, "nccl", "pip install 'minitinybert[nccl12]'"),
        (["cupy-cuda13x"], 13, "nccl", "pip install 'minitinybert[nccl13]'"),
        (["cupy"], 13, "cupy", AS_BEFORE),  # conda's, or compiled here: an extra would bring a wheel beside it
        (["cupy"], 13, "ml_dtypes", "pip install ml_dtypes"),
        (["cupy"], 12, "nccl", AS_BEFORE),
        (["cupy-cuda13x", "cupy-cuda12x"], 12, "cupy", UNINSTALL + CUDA12),
        (["cupy-cuda12x", "cupy-cuda13x"], 13, "ml_dtypes", UNINSTALL + CUDA13),
        ([], 0, "mpi4py", "pip install 'minitinybert[mpi]'"),
        ([], 0, "torch", "pip install 'minitinybert[reference]'"),
        ([], 0, "pyarrow", "pip install 'minitinybert[parquet]'"),
        ([], 0, "gensim", "pip install 'minitinybert[vectors]'"),
    ],
)
def test_the_hint_fits_what_is_there(machine, packages, driver, module, expected):
    machine(packages, driver)
    assert extras.hint(module) == expected


BROKEN = """
================================================================
Failed to import CuPy.

Original error:
  ImportError: numpy.core.multiarray failed to import
================================================================
"""


@pytest.mark.parametrize(
    "packages, error, expected",
    [
        ([], ModuleNotFoundError("No module named 'cupy'", name="cupy"), f"CuPy is not installed; {CUDA13}"),
        (
            ["cupy-cuda12x"],
            ImportError(BROKEN),
            "cupy-cuda12x is installed but cannot be imported (ImportError: numpy.core.multiarray failed to import); "
            "pip install --force-reinstall cupy-cuda12x",
        ),
        (
            ["cupy-cuda13x"],  # what is left where a second wheel was uninstalled: they share their files
            ModuleNotFoundError("No module named 'cupy'", name="cupy"),
            "cupy-cuda13x is installed but cannot be imported (No module named 'cupy'); pip install --force-reinstall cupy-cuda13x",
        ),
        (["cupy"], ImportError("no"), "cupy is installed but cannot be imported (no); install it the way cupy was installed"),
        (
            ["cupy-cuda12x", "cupy-cuda13x"],
            ImportError("no"),
            f"cupy-cuda12x and cupy-cuda13x are installed but cannot be imported (no); {UNINSTALL}{CUDA13}",
        ),
    ],
)
def test_without_cupy(machine, packages, error, expected):
    machine(packages, 13)
    assert extras.no_cupy(error) == expected


NO_DEVICE = "CuPy finds no CUDA device here"


@pytest.mark.parametrize(
    "driver, runtime, expected",
    [
        (0, 13000, NO_DEVICE),
        (13000, 13050, NO_DEVICE),
        (13000, 12090, NO_DEVICE),  # a driver runs what is older
        (
            12080,
            13050,
            f"the driver is of CUDA 12, cupy-cuda13x of CUDA 13: update the driver, or pip uninstall cupy-cuda13x, then {CUDA12}",
        ),
        (11080, 13050, "the driver is of CUDA 11, cupy-cuda13x of CUDA 13: update the driver"),
    ],
)
def test_without_a_device(machine, driver, runtime, expected):
    machine(["cupy-cuda13x"])
    versions = SimpleNamespace(driverGetVersion=lambda: driver, runtimeGetVersion=lambda: runtime)
    assert extras.no_device(SimpleNamespace(cuda=SimpleNamespace(runtime=versions))) == expected


def test_a_cupy_of_another_source_is_not_replaced(machine):
    machine(["cupy"])
    versions = SimpleNamespace(driverGetVersion=lambda: 12080, runtimeGetVersion=lambda: 13000)
    told = extras.no_device(SimpleNamespace(cuda=SimpleNamespace(runtime=versions)))
    assert told == "the driver is of CUDA 12, cupy of CUDA 13: update the driver"


def failing(*_):
    raise RuntimeError("libcublas.so.13: cannot open\nmore")


def cupy_of(version, available=True):
    """As much of CuPy as the messages look at, on a device whose CUDA has no cuBLAS."""
    runtime = SimpleNamespace(getDeviceCount=lambda: 1, driverGetVersion=lambda: 12080, runtimeGetVersion=lambda: 13000)
    chosen = SimpleNamespace(use=lambda: None)
    cuda = SimpleNamespace(is_available=lambda: available, runtime=runtime, Device=lambda index: chosen)
    return SimpleNamespace(__version__=version, cuda=cuda, float32=None, ones=failing)


@pytest.mark.parametrize(
    "cupy, ml_dtypes, ask, expected",
    [
        (None, True, lambda: machines.select("cuda"), f"--device cuda: CuPy is not installed; {CUDA12}"),
        (None, True, lambda: machines.float_type("bfloat16"), f"bfloat16: CuPy is not installed; {CUDA12}"),
        ("14.0.0", False, lambda: machines.float_type("bfloat16"), f"bfloat16 needs ml_dtypes; {CUDA13}"),
        ("13.6.0", True, lambda: machines.float_type("bfloat16"), f"bfloat16 needs CuPy 14, here is 13.6.0: choose float16, or {CUDA13}"),
        (
            "14.0.0",
            True,
            lambda: machines.select("cuda:0"),
            f"--device cuda:0: CUDA's libraries cannot be used (libcublas.so.13: cannot open); {CUDA13}",
        ),
    ],
)
def test_what_the_device_says(machine, monkeypatch, cupy, ml_dtypes, ask, expected):
    machine(["cupy-cuda13x"] if cupy else [], 12)
    monkeypatch.setitem(sys.modules, "cupy", cupy and cupy_of(cupy))
    monkeypatch.setitem(sys.modules, "ml_dtypes", SimpleNamespace() if ml_dtypes else None)
    with pytest.raises(InputError) as told:
        ask()
    assert str(told.value) == expected


def test_the_device_says_that_the_driver_is_older_than_cupy(machine, monkeypatch):
    machine(["cupy-cuda13x"])
    monkeypatch.setitem(sys.modules, "cupy", cupy_of("14.0.0", available=False))
    with pytest.raises(InputError, match=r"^--device cuda: the driver is of CUDA 12, .* \(--device cpu needs none\)$"):
        machines.select("cuda")


def test_a_rank_without_nccl_names_the_extra_of_its_own_cuda():
    told = [ranks.Gpu("", "a", "0"), ranks.Gpu("pip install 'minitinybert[nccl13]'", "b", "0")]
    assert ranks.nccl_is_out(told) == "rank 1 on b has no NCCL (pip install 'minitinybert[nccl13]')"


def brought(name):
    """The packages of an extra, those of the extras it names among them."""
    for requirement in DECLARED[name]:
        inner = re.fullmatch(r"minitinybert\[(.*)\]", requirement)
        yield from brought(inner[1]) if inner else [requirement]


def test_each_extra_brings_one_cupy_at_most_and_nccl_is_apart():
    cupys = {name: {r.split("[")[0] for r in brought(name) if r.startswith("cupy")} for name in DECLARED}
    assert {name: found for name, found in cupys.items() if found} == {
        "cuda": {"cupy-cuda13x"}, "cuda12": {"cupy-cuda12x"}, "cuda13": {"cupy-cuda13x"},
    }  # fmt: skip
    for name in ("cuda", "cuda12", "cuda13"):
        assert [r.startswith("ml_dtypes") for r in brought(name)].count(True) == 1 and not any("nccl" in r for r in brought(name))
    assert [[r.split(">")[0] for r in brought(f"nccl{cuda}")] for cuda in (12, 13)] == [["nvidia-nccl-cu12"], ["nvidia-nccl-cu13"]]


def test_messages_and_pages_name_extras_that_there_are_and_no_wheel_of_cupy():
    """extras.py alone may name one, to take it away or to repair it."""
    files = [p for folder in ("minitinybert", "tests", "bench") for p in (ROOT / folder).rglob("*.py")]
    pages = [ROOT / "README.md", *(ROOT / "bench").glob("*.md")]
    assert len(files) > 50
    for path in {*files, *pages} - {Path(__file__), ROOT / "minitinybert" / "extras.py"}:
        text = path.read_text(encoding="utf-8")
        for names in re.findall(r"minitinybert\[([\w,]+)\]", text):
            assert set(names.split(",")) <= DECLARED.keys(), f"{path}: minitinybert[{names}]"
        assert not re.search(r"pip install[^\n`']*cupy-", text), f"{path} advises a wheel of CuPy"


def test_the_drivers_cuda_is_asked_for_without_cupy():
    """Here, whatever there is: 0 without a driver, else what CuPy is told where it can ask."""
    found = extras._driver()
    assert found == 0 or found >= 9
    cupy = pytest.importorskip("cupy")
    assert found in (0, cupy.cuda.runtime.driverGetVersion() // 1000)  # 0: a simulated driver is CuPy's alone
