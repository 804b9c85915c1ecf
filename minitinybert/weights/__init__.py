"""Weights from disk and to it: Hugging Face directories, .safetensors, PyTorch .bin, Google's
TensorFlow checkpoints.

    checkpoint = weights.read("some/directory")  # or a file, a TensorFlow prefix, a Hugging Face id
    weights.write("other/directory", checkpoint.config, checkpoint.tensors, checkpoint.tokenizer_files)

Every reader hands out NumPy arrays under one set of names (see names.py); none runs code that a
file brings along.
"""

from .checkpoint import Checkpoint, read
from .fill import check_tied, fill, matched, with_decoder
from .hf import write

__all__ = ["Checkpoint", "check_tied", "fill", "matched", "read", "with_decoder", "write"]
