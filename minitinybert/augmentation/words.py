"""A text as words with their places and word pieces, and a text with some of its words replaced.

A word is what the tokenizer's own pre-tokenizer makes one: for BERT a run of letters and digits, or
one punctuation mark, or one Chinese character. All between the words, and the words that are kept,
stay as they are written.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..data.tokenizer import Tokenizer


class Word(NamedTuple):
    text: str  # as it is written: text[start:stop] of the sentence
    start: int
    stop: int
    ids: tuple[int, ...]  # its pieces


class Replacement(NamedTuple):
    """`text[start:stop]`, the sentence's word number `position` (from 0), becomes `replacement`.

    That is the new word, with a space beside it only where it would otherwise run together with its
    neighbour.
    """

    position: int
    start: int
    stop: int
    word: str
    replacement: str
    source: str  # "bert" or "glove"


def apply(text: str, replacements: Iterable[Replacement]) -> str:
    """The text with the replacements made; they are in order and do not overlap."""
    parts, at = [], 0
    for r in replacements:
        parts += [text[at : r.start], r.replacement]
        at = r.stop
    return "".join([*parts, text[at:]])


class WordReader:
    """Words by a Tokenizer. `whole` (vocab_size,) tells which ids are words of their own: no
    ##piece, no special or [unused] token."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer, inner = tokenizer, tokenizer.tokenizer
        self.special = [token.content for token in inner.get_added_tokens_decoder().values()]  # what is taken out of a text first
        special = set(inner.get_added_tokens_decoder()) | {tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id}
        special.add(tokenizer.mask_id)
        self.whole = np.zeros(tokenizer.vocab_size, bool)
        for piece, id in inner.get_vocab(with_added_tokens=True).items():
            unused = piece.startswith("[unused") and piece.endswith("]")
            self.whole[id] = id not in special and not piece.startswith("##") and not unused
        self.pieces = lru_cache(1 << 16)(self._pieces)
        self._run_together = lru_cache(1 << 16)(self._is_one_word)

    def split(self, texts: Sequence[str]) -> list[list[Word]]:
        """The words of each text, in order."""
        encodings = self.tokenizer.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [_words(text, e.word_ids, e.offsets, e.ids) for text, e in zip(texts, encodings, strict=True)]

    def is_piece(self, word: Word) -> bool:
        """Whether the word is a single piece of the vocabulary: one that BERT could have said."""
        return len(word.ids) == 1 and bool(self.whole[word.ids[0]])

    def _pieces(self, word: str) -> tuple[int, ...]:
        """The ids of a word that is put into a text."""
        return tuple(self.tokenizer.tokenizer.encode(word, add_special_tokens=False).ids)

    def replacements(self, text: str, words: Sequence[Word], chosen: Mapping[int, tuple[str, str]]) -> list[Replacement]:
        """chosen: (new word, source) by position -> what is put where, spaces included where words
        would run together."""
        made: list[Replacement] = []
        before, at = "", 0  # the character before the next word, and how far the text is done
        for i in sorted(chosen):
            word, (new, source) = words[i], chosen[i]
            if word.start > at:
                before = text[word.start - 1]
            left = " " if before and self._run_together(before, new[0]) else ""
            neighbour_goes = i + 1 in chosen and words[i + 1].start == word.stop
            after = text[word.stop : word.stop + 1]
            right = " " if after and not neighbour_goes and self._run_together(new[-1], after) else ""
            made.append(Replacement(i, word.start, word.stop, word.text, left + new + right, source))
            before, at = (new + right)[-1], word.stop
        return made

    def _is_one_word(self, a: str, b: str) -> bool:
        return (
            not a.isspace() and not b.isspace() and len(set(self.tokenizer.tokenizer.encode(a + b, add_special_tokens=False).word_ids)) < 2
        )


def _words(text: str, numbers: Sequence[int | None], offsets: Sequence[tuple[int, int]], ids: Sequence[int]) -> list[Word]:
    spans: dict[int, list[int]] = {}  # by the word's number: start, stop, ids
    for number, (start, stop), id in zip(numbers, offsets, ids, strict=True):
        if number is not None:
            span = spans.setdefault(number, [start, stop])
            span[1] = max(span[1], stop)
            span.append(id)
    words = []
    for start, stop, *pieces in spans.values():
        # The normalizer drops accents that stand as characters of their own; they belong to their
        # word.
        while stop < len(text) and unicodedata.combining(text[stop]):
            stop += 1
        words.append(Word(text[start:stop], start, stop, tuple(pieces)))
    return words
