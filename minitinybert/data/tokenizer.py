"""BERT's tokenizer, by the `tokenizers` library, as a model directory's files mean it
(weights/hf_tokenizer.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers

from ..errors import InputError
from ..progress import log
from ..weights import hf_tokenizer
from ..weights.hf import tokenizer_files

_MUCH = 0.1  # of the pieces; emoji and rare signs are less

_MOST_IDS = 1 << 24  # the largest vocabularies have a million


class Encoded(NamedTuple):
    input_ids: np.ndarray  # (L,) int32: [CLS] A [SEP], or [CLS] A [SEP] B [SEP]
    token_type_ids: np.ndarray  # (L,) int32: 1 for B and its [SEP]


class Tokenizer:
    """`files` are those it was made of: they go along when a model is saved. `vocab_size` is its
    highest id + 1. cut: at which end ("right", "left") a text that is too long is cut."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, files: Mapping[str, Path], where: str, cut: str = "right"):
        self.tokenizer, self.files, self.where, self.cut = tokenizer, dict(files), where, cut
        tokenizer.no_padding()  # sentence-transformers' files pad and cut
        tokenizer.no_truncation()
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = _special_ids(vocabulary, where)
        # Not the number of entries: a vocabulary that holds a piece twice has fewer entries than
        # ids. The empty piece, of empty lines at a vocab.txt's end, is in no text.
        self.vocab_size = max(id for piece, id in vocabulary.items() if piece) + 1
        if self.vocab_size > _MOST_IDS:
            raise InputError(f"{where}: a piece has the id {self.vocab_size - 1}, which no model has a row for; is the file damaged?")

    @classmethod
    def load(cls, source: str | Path | Mapping[str, Path]) -> Tokenizer:
        """From a model directory, or its files by name. What the user should know is logged.

        InputError where neither tokenizer.json nor vocab.txt is there, a file is not what its name
        says, or it is no BERT tokenizer.
        """
        if isinstance(source, Mapping):
            files, where = dict(source), "the model's directory"
            for path in files.values():
                if not Path(path).is_file():
                    raise InputError(f"{path}: no such file; the tokenizer needs it")
        else:
            files, where = tokenizer_files(Path(source)), str(source)
        name = next((name for name in ("tokenizer.json", "vocab.txt") if name in files), None)
        if name is None:
            raise InputError(f"{where}: no tokenizer.json and no vocab.txt; put the model's own there")
        pipeline = hf_tokenizer.build(files)
        for note in pipeline.notes:
            log(f"warning: {note}")
        return cls(pipeline.tokenizer, files, str(files[name]), pipeline.config.get("truncation_side", "right"))

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
        self.tokenizer.enable_truncation(max_length, strategy="longest_first", direction=self.cut)
        try:
            encodings = self.tokenizer.encode_batch(list(texts) if pairs is None else list(zip(texts, pairs, strict=True)))
        except TypeError:
            raise _not_unicode([*texts, *(pairs or ())]) from None
        except Exception as error:  # the library raises a bare one, such as for a vocabulary without its own unknown piece
            raise InputError(f"{self.where}: texts cannot be split with it ({error}); is the file damaged?") from None
        finally:
            self.tokenizer.no_truncation()
        return [Encoded(np.array(e.ids, np.int32), np.array(e.type_ids, np.int32)) for e in encodings]

    def check_known(self, texts: Sequence[np.ndarray], where: str | Path, must: bool = True) -> None:
        """A warning where the vocabulary does not know a tenth of some encoded texts' pieces, or no
        piece of a tenth of the texts (of one, without `must`); InputError, with `must`, where it
        knows nothing at all."""
        unknown, pieces = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64)
        for i, ids in enumerate(texts):
            unknown[i] = (ids == self.unk_id).sum()
            pieces[i] = ((ids != self.cls_id) & (ids != self.sep_id)).sum()
        self.check_share(int(unknown.sum()), int(pieces.sum()), where, must)
        lost = int(((unknown == pieces) & (pieces > 0)).sum())
        if lost and lost >= (_MUCH * len(texts) if must else 1):
            log(f"warning: {where}: of {lost} of {len(texts)} texts the model sees nothing but [UNK]")

    def check_share(self, unknown: int, pieces: int, where: str | Path, must: bool = True) -> None:
        """The same of counts: [UNK], and all pieces without [CLS] and [SEP]."""
        if unknown < _MUCH * pieces or not pieces:
            return
        if unknown == pieces and must:
            raise InputError(f"{where}: every word is [UNK] to the vocabulary of {self.where}; is it of another language, or another case?")
        log(f"warning: {where}: {unknown / pieces:.0%} of the word pieces are [UNK]: the vocabulary of {self.where} does not know them")

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
    for token in hf_tokenizer.SPECIAL.values():
        if token not in vocabulary:
            raise InputError(f"{where}: the vocabulary has no {token}; a BERT vocabulary is needed")
    return [vocabulary[token] for token in hf_tokenizer.SPECIAL.values()]
