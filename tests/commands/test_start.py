"""What the command line brings in before it knows what it is asked: nothing that takes long."""

import subprocess
import sys
from dataclasses import replace

import pytest

import minitinybert
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config

EXTRA = {"pyarrow", "gensim", "sklearn", "numba", "torch", "onnx", "onnxruntime", "mpi4py", "ml_dtypes", "cupy"}
HEAVY = EXTRA | {"numpy", "scipy", "matplotlib", "tokenizers", "safetensors", "tqdm", "huggingface_hub", "shtab"}


def brought_in(code):
    shown = f"{code}\nimport sys; print(*(name for name in {sorted(HEAVY)} if sys.modules.get(name)))"
    return set(subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True).stdout.splitlines()[-1].split())


def test_help_needs_no_library():
    code = "from minitinybert.commands.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    assert brought_in(code) == set()


def test_a_float32_gelu_needs_no_scipy():
    code = "import numpy as np\nfrom minitinybert.ops import gelu\ngelu.forward(np.ones(3, np.float32))"
    assert "scipy" not in brought_in(code)


def test_predict_needs_none_of_the_extras(tmp_path):
    """Not by chance either: what an extra brings cannot be imported here, and pyarrow takes half a second where it can."""
    config = Config(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, head="classifier")
    model = Bert.new(replace(config, pooler=True, max_position_embeddings=16), 3)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\nbad\nfilm\n", encoding="utf-8")
    model.tokenizer_files = {"vocab.txt": tmp_path / "vocab.txt"}
    model.save(tmp_path / "model")
    ask = f"main(['predict', '--model', {str(tmp_path / 'model')!r}, '--max-length', '16', 'a good film'])"
    without = f"import sys\nsys.modules.update(dict.fromkeys({sorted(EXTRA)}))\n"
    code = f"{without}from minitinybert.commands.cli import main\nif {ask}: sys.exit(1)\nprint()"
    assert not brought_in(code) & {"matplotlib", "huggingface_hub"}


def test_public_names_come_when_asked():
    assert brought_in("import minitinybert") == set()
    for name in minitinybert.__all__:
        assert getattr(minitinybert, name) is not None and name in dir(minitinybert)
    with pytest.raises(AttributeError, match="nothing_such"):
        minitinybert.nothing_such  # noqa: B018
