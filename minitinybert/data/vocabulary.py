"""A word-piece vocabulary from raw text, for those who have none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from ..errors import InputError
from ..files import replacing
from .text import read_corpus

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # [PAD] is 0


def train_vocabulary(files: Sequence[str | Path], size: int, directory: str | Path, lower_case: bool = True) -> Path:
    """Learn up to `size` word pieces and write `directory`/tokenizer.json, BERT's pipeline with
    them; one that is there is kept.

    Returns the directory. InputError where a file cannot be read, is no UTF-8, or `size` holds no
    more than the special tokens.
    """
    directory = Path(directory)
    if (directory / "tokenizer.json").exists():
        return directory
    if size <= len(_SPECIAL):
        raise InputError(f"a vocabulary of {size} word pieces: more than the {len(_SPECIAL)} special tokens are needed")
    # The trainer numbers the pieces of one letter as they come out of a hash table, and ties follow
    # the numbers: fixed beforehand, the vocabulary is a function of the text.
    letters = sorted(_learn(files, _SPECIAL, len(_SPECIAL), lower_case).keys() - set(_SPECIAL))
    vocabulary = _learn(files, _SPECIAL + letters, size, lower_case)
    tokenizer = _pipeline(models.WordPiece(vocabulary, unk_token="[UNK]"), lower_case)
    tokenizer.add_special_tokens(_SPECIAL)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    directory.mkdir(parents=True, exist_ok=True)
    with replacing(directory / "tokenizer.json") as beside:
        tokenizer.save(str(beside))
    return directory


def _pipeline(model: models.WordPiece, lower_case: bool) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _learn(files: Sequence[str | Path], first: list[str], size: int, lower_case: bool) -> dict[str, int]:
    """{piece: id} of up to `size` pieces, `first` those of the lowest ids; pieces of one letter are
    always among them."""
    tokenizer = _pipeline(models.WordPiece(unk_token="[UNK]"), lower_case)
    tokenizer.train_from_iterator(_lines(files), trainers.WordPieceTrainer(vocab_size=size, special_tokens=first, show_progress=False))
    return tokenizer.get_vocab()


def _lines(files: Sequence[str | Path]) -> Iterator[str]:
    for file in files:
        yield from read_corpus(Path(file))
