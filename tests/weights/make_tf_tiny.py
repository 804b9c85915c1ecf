"""Makes tf_tiny/ with TensorFlow itself: python make_tf_tiny.py (TensorFlow 2.x; the tests do not need it).

A BERT of one layer, as Google's run_classifier.py saves one: weights, Adam's slots, global_step; and what TensorFlow's own reader
reads of it, in expected.npz.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent / "tf_tiny"
V, D, F, C = 11, 4, 6, 3
CONFIG = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": D,
    "initializer_range": 0.02,
    "intermediate_size": F,
    "max_position_embeddings": 7,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "type_vocab_size": 2,
    "vocab_size": V,
}
NORMS = ("bert/embeddings", "bert/encoder/layer_0/attention/output", "bert/encoder/layer_0/output", "cls/predictions/transform")
DENSE = {
    **{f"bert/encoder/layer_0/attention/self/{name}": (D, D) for name in ("query", "key", "value")},
    "bert/encoder/layer_0/attention/output/dense": (D, D),
    "bert/encoder/layer_0/intermediate/dense": (D, F),
    "bert/encoder/layer_0/output/dense": (F, D),
    "bert/pooler/dense": (D, D),
    "cls/predictions/transform/dense": (D, D),
}
SHAPES = {
    "bert/embeddings/word_embeddings": (V, D),
    "bert/embeddings/position_embeddings": (7, D),
    "bert/embeddings/token_type_embeddings": (2, D),
    **{f"{scope}/LayerNorm/{name}": (D,) for scope in NORMS for name in ("beta", "gamma")},
    **{f"{scope}/kernel": shape for scope, shape in DENSE.items()},
    **{f"{scope}/bias": shape[1:] for scope, shape in DENSE.items()},
    "cls/predictions/output_bias": (V,),
    "cls/seq_relationship/output_weights": (2, D),
    "cls/seq_relationship/output_bias": (2,),
    "output_weights": (C, D),
    "output_bias": (C,),
}


def main() -> None:
    draw = np.random.default_rng(0)
    values = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    slots = {
        f"{name}/{slot}": draw.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items() for slot in ("adam_m", "adam_v")
    }
    HERE.mkdir(exist_ok=True)
    (HERE / "bert_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    prefix = str(HERE / "model.ckpt-7")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [tf.compat.v1.get_variable(name, initializer=value) for name, value in {**values, **slots}.items()]
        variables.append(tf.compat.v1.get_variable("global_step", initializer=np.int64(7)))
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(session, prefix, write_meta_graph=False, write_state=False)
    reader = tf.train.load_checkpoint(prefix)
    np.savez_compressed(HERE / "expected.npz", **{name: reader.get_tensor(name) for name in values})


if __name__ == "__main__":
    main()
