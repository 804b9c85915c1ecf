from __future__ import annotations

import numpy as np
import pytest

pytest.register_assert_rewrite("weights.helpers")

CONFIG = {
    "model_type": "bert",
    "architectures": ["BertForPreTraining"],
    "vocab_size": 13,
    "hidden_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 6,
    "max_position_embeddings": 7,
    "type_vocab_size": 2,
}


@pytest.fixture(scope="session")
def config():
    return dict(CONFIG)


@pytest.fixture(scope="session")
def tensors():
    """A few tensors with canonical names, random and of several shapes."""
    draw = np.random.default_rng(0)
    shapes = {
        "bert.embeddings.word_embeddings.weight": (13, 4),
        "bert.embeddings.LayerNorm.weight": (4,),
        "bert.encoder.layer.0.intermediate.dense.weight": (6, 4),
        "bert.encoder.layer.0.intermediate.dense.bias": (6,),
        "cls.predictions.bias": (13,),
    }
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def bert_config():
    """transformers' configuration of a tiny BERT."""
    transformers = pytest.importorskip("transformers")
    return transformers.BertConfig(**{k: v for k, v in CONFIG.items() if k not in ("model_type", "architectures")}, num_labels=3)
