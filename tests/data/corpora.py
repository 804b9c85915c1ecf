"""Small corpora, and a tokenizer of a hundred words that reads them."""

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import BertProcessing

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(95))]


def words(n=100):
    tokenizer = Tokenizer(WordPiece({word: i for i, word in enumerate(WORDS[:n])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def write(path, documents):
    """documents: lists of sentences, each a list of ids."""
    lines = ("".join(" ".join(WORDS[i] for i in s) + "\n" for s in document) for document in documents)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def draw(seed, documents=30, longest=20):
    rng = np.random.default_rng(seed)
    return [[rng.integers(5, 100, rng.integers(1, longest)).tolist() for _ in range(rng.integers(1, 8))] for _ in range(documents)]
