"""BERT's tokenizer, by the `tokenizers` library: from a tokenizer.json, or built of a vocab.txt as BERT's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from ..errors import InputError

FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Encoded(NamedTuple):
    input_ids: np.ndarray  # (L,) int32: [CLS] A [SEP], or [CLS] A [SEP] B [SEP]
    token_type_ids: np.ndarray  # (L,) int32: 1 for B and its [SEP]


class Tokenizer:
    """`files` are those it was made of: they go along when a model is saved."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, files: Mapping[str, Path], where: str):
        self.tokenizer, self.files, self.where = tokenizer, dict(files), where
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.vocab_size = tokenizer.get_vocab_size(with_added_tokens=True)
        ids: list = [tokenizer.token_to_id(token) for token in _SPECIAL]
        for token, id in zip(_SPECIAL, ids, strict=True):
            if id is None:
                raise InputError(f"{where}: the vocabulary has no {token}; a BERT vocabulary is needed")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = ids

    @classmethod
    def load(cls, source: str | Path | Mapping[str, Path]) -> Tokenizer:
        """From a model directory, or its files by name. tokenizer.json comes first; InputError where neither it nor vocab.txt is there."""
        if isinstance(source, Mapping):
            files, where = dict(source), "the model's directory"
        else:
            files = {name: Path(source) / name for name in FILES if (Path(source) / name).is_file()}
            where = str(source)
        if "tokenizer.json" in files:
            return cls(_from_json(files["tokenizer.json"]), files, str(files["tokenizer.json"]))
        if "vocab.txt" in files:
            return cls(_from_vocabulary(files["vocab.txt"], _settings(files)), files, str(files["vocab.txt"]))
        raise InputError(f"{where}: no tokenizer.json and no vocab.txt; put the model's own there")

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None, max_length: int = 128) -> list[Encoded]:
        """Ids with [CLS] and [SEP], at most max_length; of a pair the longer text is cut first, token by token, as BERT does."""
        self.tokenizer.enable_truncation(max_length, strategy="longest_first")
        try:
            inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
            encodings = self.tokenizer.encode_batch(inputs)
        finally:
            self.tokenizer.no_truncation()
        return [Encoded(np.array(e.ids, np.int32), np.array(e.type_ids, np.int32)) for e in encodings]

    def id_to_token(self, id: int) -> str:
        return self.tokenizer.id_to_token(id) or "[UNK]"

    def token_to_id(self, token: str) -> int | None:
        return self.tokenizer.token_to_id(token)

    def check_fits(self, vocab_size: int) -> None:
        """InputError where the tokenizer can say ids that a model with `vocab_size` rows does not have."""
        if self.vocab_size > vocab_size:
            raise InputError(f"{self.where}: {self.vocab_size} word pieces, the model has {vocab_size} rows; they do not belong together")

    def check_same_vocabulary(self, other: Tokenizer) -> None:
        """InputError naming the first id that means something else to `other`: a student reads its teacher's ids."""
        for id in range(max(self.vocab_size, other.vocab_size)):
            mine, theirs = self.tokenizer.id_to_token(id), other.tokenizer.id_to_token(id)
            if mine != theirs:
                raise InputError(
                    f"{self.where} and {other.where} differ: id {id} is {mine!r} in one and {theirs!r} in the other; "
                    "student and teacher need one vocabulary"
                )


def _from_json(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception for whatever is wrong in the file
        raise InputError(f"{path}: not a tokenizer.json ({error})") from None


def _settings(files: Mapping[str, Path]) -> dict:
    if "tokenizer_config.json" not in files:
        return {}
    try:
        return json.loads(files["tokenizer_config.json"].read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{files['tokenizer_config.json']}: not JSON ({error})") from None


def _from_vocabulary(path: Path, settings: dict) -> tokenizers.Tokenizer:
    """BERT's pipeline: clean, lower-case and strip accents (uncased), split at white space and punctuation, WordPiece."""
    try:
        words = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); download it again") from None
    vocabulary = {word.rstrip("\r"): id for id, word in enumerate(words) if word.rstrip("\r") or id < len(words) - 1}
    missing = [token for token in _SPECIAL if token not in vocabulary]
    if missing:
        raise InputError(f"{path}: the vocabulary has no {missing[0]}; a BERT vocabulary is needed")
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(list(_SPECIAL))
    cls_id, sep_id = vocabulary["[CLS]"], vocabulary["[SEP]"]
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep_id), ("[CLS]", cls_id))
    return tokenizer
