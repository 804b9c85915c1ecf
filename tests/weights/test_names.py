from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minitinybert.errors import InputError
from minitinybert.weights.names import canonical, rename


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
        ("bert.encoder.layer.0.output.LayerNorm.beta", "bert.encoder.layer.0.output.LayerNorm.bias"),
        ("module.bert.pooler.dense.weight", "bert.pooler.dense.weight"),
        ("module.encoder.layer.11.attention.self.query.bias", "bert.encoder.layer.11.attention.self.query.bias"),
        ("cls.predictions.transform.LayerNorm.gamma", "cls.predictions.transform.LayerNorm.weight"),
        ("cls.predictions.decoder.weight", "cls.predictions.decoder.weight"),
        ("cls.predictions.bias", "cls.predictions.bias"),
        ("cls.seq_relationship.weight", "cls.seq_relationship.weight"),
        ("classifier.weight", "classifier.weight"),
        ("module.classifier.bias", "classifier.bias"),
        ("model.bert.pooler.dense.weight", "bert.pooler.dense.weight"),
        ("model.model.classifier.bias", "classifier.bias"),
        ("_orig_mod.pooler.dense.bias", "bert.pooler.dense.bias"),
        ("module._orig_mod.bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
        ("model._orig_mod.module.fit_dense.bias", "fit_dense.bias"),
        ("bert._orig_mod.encoder._orig_mod.layer.0.output.dense.bias", "bert.encoder.layer.0.output.dense.bias"),
        ("_fsdp_wrapped_module.bert.pooler._fsdp_wrapped_module.dense.bias", "bert.pooler.dense.bias"),
        ("bert.encoder.layer.0._checkpoint_wrapped_module.output.dense.bias", "bert.encoder.layer.0.output.dense.bias"),
        ("model.adapter.module.weight", "model.adapter.module.weight"),  # no tensor of a BERT: as it is
        ("model.embedding.weight", "model.embedding.weight"),
        ("student.bert.pooler.dense.bias", "student.bert.pooler.dense.bias"),
        ("fit_dense.weight", "fit_dense.weight"),
        ("fit_denses.2.bias", "fit_denses.2.bias"),
        ("adapter.gamma", "adapter.gamma"),  # gamma is an old name in a LayerNorm only
        ("bert.LayerNorm.gamma.extra", "bert.LayerNorm.gamma.extra"),
        ("bert.MyLayerNorm.gamma", "bert.MyLayerNorm.gamma"),
        ("my_encoder.weight", "my_encoder.weight"),
    ],
)
def test_canonical(old, new):
    assert canonical(old) == new
    assert canonical(new) == new


def test_position_ids_are_dropped():
    tensors = {"embeddings.position_ids": np.arange(3), "bert.embeddings.LayerNorm.beta": np.ones(2)}
    assert list(rename(tensors, Path("x.bin"))) == ["bert.embeddings.LayerNorm.bias"]


def test_two_spellings_of_one_tensor():
    tensors = {"bert.embeddings.LayerNorm.bias": np.ones(2), "module.embeddings.LayerNorm.beta": np.zeros(2)}
    with pytest.raises(InputError, match=r"x\.bin: two tensors are bert\.embeddings\.LayerNorm\.bias .*module\.embeddings"):
        rename(tensors, Path("x.bin"))
