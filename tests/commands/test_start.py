"""What the command line brings in before it knows what it is asked: nothing that takes long."""

import subprocess
import sys

import pytest

import minitinybert

HEAVY = {"numpy", "scipy", "pyarrow", "numba", "matplotlib", "gensim", "tokenizers", "cupy", "safetensors", "tqdm"}


def brought_in(code):
    shown = f"{code}\nimport sys; print(*(name for name in {sorted(HEAVY)} if name in sys.modules))"
    return set(subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True).stdout.splitlines()[-1].split())


def test_help_needs_no_library():
    code = "from minitinybert.commands.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    assert brought_in(code) == set()


def test_a_float32_gelu_needs_no_scipy():
    code = "import numpy as np\nfrom minitinybert.ops import gelu\ngelu.forward(np.ones(3, np.float32))"
    assert "scipy" not in brought_in(code)


def test_public_names_come_when_asked():
    assert brought_in("import minitinybert") == set()
    for name in minitinybert.__all__:
        assert getattr(minitinybert, name) is not None and name in dir(minitinybert)
    with pytest.raises(AttributeError, match="nothing_such"):
        minitinybert.nothing_such  # noqa: B018
