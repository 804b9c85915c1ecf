"""A masked language model of a few dozen words with random weights, its tokenizer, and vectors for some words it has in several pieces."""

import numpy as np

from minitinybert.data.tokenizer import Tokenizer
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config

WHOLE = ["the", "film", "is", "a", "good", "bad", "story", "plot", "of", "love", "war", "and", "it", "was", "very", "dull", "he", "she"]
MARKS = list(".,!?'\"-")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", *WHOLE, *MARKS, *(c for c in LETTERS if c != "a")]
PIECES += ["##" + c for c in LETTERS] + ["##ing", "中"]
SEVERAL = ["walking", "movie", "boring", "acting", "scene", "actor", "clever", "plots"]  # words of several pieces that have vectors


def tokenizer(directory):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return Tokenizer.load(directory)


def model(directory, head="mlm", positions=512, seed=0):
    """A saved model; its weights are large enough for what it says to depend on the sentence."""
    tokenizer(directory.parent / "vocabulary")
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "initializer_range": 0.3}
    config = Config(vocab_size=len(PIECES), **sizes, max_position_embeddings=positions, head=head, pooler=head == "classifier")
    bert = Bert.new(config, seed)
    Bert(config, bert.parameters, {"vocab.txt": directory.parent / "vocabulary" / "vocab.txt"}).save(directory)
    return directory


def vectors(n=5, seed=0):
    """words, (words, n) float32: those of SEVERAL, and others."""
    words = SEVERAL + WHOLE + ["<unk>", "café"]
    return words, np.random.default_rng(seed).standard_normal((len(words), n)).astype(np.float32)


def write_glove(path, seed=0):
    words, table = vectors(seed=seed)
    lines = [f"{word} {' '.join(map(repr, row.tolist()))}\n" for word, row in zip(words, table, strict=True)]
    path.write_text("".join(lines), encoding="utf-8")
    return path
