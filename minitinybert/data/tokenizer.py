"""BERT's tokenizer, by the `tokenizers` library: from a tokenizer.json, or built of a vocab.txt as
BERT's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from ..errors import InputError
from ..files import read_json
from ..weights.hf import tokenizer_files

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Encoded(NamedTuple):
    input_ids: np.ndarray  # (L,) int32: [CLS] A [SEP], or [CLS] A [SEP] B [SEP]
    token_type_ids: np.ndarray  # (L,) int32: 1 for B and its [SEP]


class Tokenizer:
    """`files` are those it was made of: they go along when a model is saved. `vocab_size` is its
    highest id + 1."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, files: Mapping[str, Path], where: str):
        self.tokenizer, self.files, self.where = tokenizer, dict(files), where
        tokenizer.no_padding()  # sentence-transformers' files pad and cut
        tokenizer.no_truncation()
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = _special_ids(vocabulary, where)
        # Not the number of entries: a vocabulary that holds a piece twice has fewer entries than
        # ids.
        self.vocab_size = max(vocabulary.values()) + 1
        if tokenizer.encode("").ids != [self.cls_id, self.sep_id]:  # a tokenizer.json saved without BERT's template
            tokenizer.post_processor = processors.BertProcessing(("[SEP]", self.sep_id), ("[CLS]", self.cls_id))

    @classmethod
    def load(cls, source: str | Path | Mapping[str, Path]) -> Tokenizer:
        """From a model directory, or its files by name. tokenizer.json comes first.

        InputError where neither it nor vocab.txt is there, a file is not what its name says, or it
        is no BERT tokenizer.
        """
        if isinstance(source, Mapping):
            files, where = dict(source), "the model's directory"
            for path in files.values():
                if not Path(path).is_file():
                    raise InputError(f"{path}: no such file; the tokenizer needs it")
        else:
            files, where = tokenizer_files(Path(source)), str(source)
        if "tokenizer.json" in files:
            return cls(_from_json(files["tokenizer.json"]), files, str(files["tokenizer.json"]))
        if "vocab.txt" in files:
            return cls(_from_vocabulary(files["vocab.txt"], files.get("tokenizer_config.json")), files, str(files["vocab.txt"]))
        raise InputError(f"{where}: no tokenizer.json and no vocab.txt; put the model's own there")

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None, max_length: int = 128) -> list[Encoded]:
        """Ids with [CLS] and [SEP], at most max_length; of a pair the longer text is cut first.

        As transformers' fast tokenizer does it: where both are cut and an odd length is left, the
        text that was longer, or else B, has the extra piece (Google's script gives it to A).
        InputError where max_length leaves no room for a piece of each text, or a text is not valid
        Unicode.
        """
        least = 3 if pairs is None else 5
        if max_length < least:
            raise InputError(f"max_length {max_length}: at least {least} are needed, for [CLS], [SEP] and a piece of each text")
        self.tokenizer.enable_truncation(max_length, strategy="longest_first")
        try:
            encodings = self.tokenizer.encode_batch(list(texts) if pairs is None else list(zip(texts, pairs, strict=True)))
        except TypeError:
            raise _not_unicode([*texts, *(pairs or ())]) from None
        finally:
            self.tokenizer.no_truncation()
        return [Encoded(np.array(e.ids, np.int32), np.array(e.type_ids, np.int32)) for e in encodings]

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        """The ids of each word's pieces, without [CLS] and [SEP], as transformers' tokenizers have
        them of text that is split into words; [UNK] for a word that leaves none (a space, say)."""
        try:
            encodings = self.tokenizer.encode_batch([list(words) for words in sentences], is_pretokenized=True, add_special_tokens=False)
        except TypeError:
            raise _not_unicode([word for words in sentences for word in words]) from None
        found: list[list[list[int]]] = [[[] for _ in words] for words in sentences]
        for pieces, encoding in zip(found, encodings, strict=True):
            for word, id in zip(encoding.word_ids, encoding.ids, strict=True):
                pieces[word or 0].append(id)  # never None without [CLS] and [SEP]
        return [[own or [self.unk_id] for own in pieces] for pieces in found]

    def encode_spans(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each text its pieces' ids (P,) int32, without [CLS] and [SEP], and the characters of the
        text that each is made of, (P, 2) int32 from … to: through lower case, stripped accents and
        all else that the tokenizer changes."""
        try:
            encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        except TypeError:
            raise _not_unicode(texts) from None
        return [(np.array(e.ids, np.int32), np.array(e.offsets, np.int32).reshape(-1, 2)) for e in encodings]

    def id_to_token(self, id: int) -> str:
        return self.tokenizer.id_to_token(id) or "[UNK]"

    def token_to_id(self, token: str) -> int | None:
        return self.tokenizer.token_to_id(token)

    def check_fits(self, vocab_size: int) -> None:
        """InputError where the tokenizer can say ids that a model with `vocab_size` rows does not
        have."""
        if self.vocab_size > vocab_size:
            raise InputError(f"{self.where}: {self.vocab_size} word pieces, the model has {vocab_size} rows; they do not belong together")

    def same_vocabulary(self, other: Tokenizer) -> bool:
        """Whether every id means the same piece to both."""
        return self._first_difference(other) is None

    def check_same_vocabulary(self, other: Tokenizer) -> None:
        """InputError naming the first id that means something else to `other`: a student reads its
        teacher's ids."""
        id = self._first_difference(other)
        if id is not None:
            mine, theirs = self.tokenizer.id_to_token(id), other.tokenizer.id_to_token(id)
            raise InputError(
                f"{self.where} and {other.where} differ: id {id} is {mine!r} in one and {theirs!r} in the other; "
                "student and teacher need one vocabulary"
            )

    def _first_difference(self, other: Tokenizer) -> int | None:
        ids = range(max(self.vocab_size, other.vocab_size))
        return next((id for id in ids if self.tokenizer.id_to_token(id) != other.tokenizer.id_to_token(id)), None)


def _not_unicode(texts: Sequence[str]) -> InputError:
    """Half a surrogate pair: bytes of another encoding on the command line, or an escape in JSON."""
    bad = next(text for text in texts if any("\ud800" <= c <= "\udfff" for c in text))
    return InputError(f"{bad[:60]!a}: not valid Unicode; write it as UTF-8")


def _special_ids(vocabulary: Mapping[str, int], where: str) -> list[int]:
    for token in _SPECIAL:
        if token not in vocabulary:
            raise InputError(f"{where}: the vocabulary has no {token}; a BERT vocabulary is needed")
    return [vocabulary[token] for token in _SPECIAL]


def _from_json(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception for whatever is wrong in the file
        raise InputError(f"{path}: not a tokenizer.json ({error})") from None


def _switch(settings: Mapping[str, Any], path: Path | None, name: str, default: bool | None) -> Any:
    """true or false of tokenizer_config.json; null and an absent entry are the default."""
    value = settings.get(name)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{path}: {name} is {value!r}; true or false is needed")
    return default if value is None else value


def _from_vocabulary(path: Path, config: Path | None) -> tokenizers.Tokenizer:
    """BERT's pipeline: clean, lower-case and strip accents (uncased), split at white space and
    punctuation, WordPiece."""
    try:
        words = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); download it again") from None
    vocabulary = {word: id for id, word in enumerate(words)}
    cls_id, sep_id = _special_ids(vocabulary, str(path))[2:4]
    settings = read_json(config) if config else {}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=_switch(settings, config, "tokenize_chinese_chars", True),
        strip_accents=_switch(settings, config, "strip_accents", None),  # None: as lower-casing says
        lowercase=_switch(settings, config, "do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep_id), ("[CLS]", cls_id))
    return tokenizer
