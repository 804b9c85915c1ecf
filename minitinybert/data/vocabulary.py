"""A word-piece vocabulary from raw text, for those who have none.

Lower-casing, as BERT does it, strips the marks that Unicode writes as characters of their own. Of
Latin and Greek letters those are accents, and BERT's English habit is to do without; elsewhere they
are vowels and consonants, without which words become one: में and मे, が and か, đẹp and đep. Which marks a
language needs is decided by `needs_marks`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import trainers

from ..errors import InputError
from ..files import read_json, replacing, write_json
from ..progress import log
from ..weights.hf_tokenizer import SPECIAL, bert_pipeline, frame, settings
from .corpus import sources
from .text import read_corpus

_SPECIAL = list(SPECIAL.values())  # [PAD] is 0
_NEEDED_SHARE = 0.01  # of the words: what English text has of foreign names is below
_ACCENTS = set("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0313\u0314\u0326\u0327\u0328\u0342\u0345")
# Points that Hebrew and Arabic are mostly written without, and signs that choose how an emoji looks.
_OPTIONAL = {chr(c) for first, last in ((0x591, 0x5C7), (0x64B, 0x652), (0x670, 0x670), (0xFE00, 0xFE0F)) for c in range(first, last + 1)}


def train_vocabulary(
    files: Sequence[str | Path], size: int, directory: str | Path, lower_case: bool = True, keep_accents: bool = False
) -> Path:
    """Learn up to `size` word pieces and write `directory`/tokenizer.json, BERT's pipeline with
    them, its tokenizer_config.json, and vocabulary.json: what was asked.

    lower_case: case goes, and accents with it but for keep_accents. A vocabulary that is there is
    kept where it is of the same size, text and choices. Returns the directory. InputError where
    another is there, a file cannot be read, is no UTF-8, or `size` holds no more than the special
    tokens. A warning where marks are stripped that the text's language needs.
    """
    directory, paths = Path(directory), [Path(file) for file in files]
    strips = lower_case and not keep_accents
    asked = {"size": size, "lower_case": lower_case, "strip_accents": strips, "corpus": sources(paths)}
    if (directory / "tokenizer.json").exists():
        _check_same(directory, asked)
        return directory
    if size <= len(_SPECIAL):
        raise InputError(f"a vocabulary of {size} word pieces: more than the {len(_SPECIAL)} special tokens are needed")
    # The trainer numbers the pieces of one letter as they come out of a hash table, and ties follow
    # the numbers: fixed beforehand, the vocabulary is a function of the text.
    marks = _Marks()
    letters = sorted(_learn(marks.seen(paths) if strips else _lines(paths), _SPECIAL, len(_SPECIAL), asked).keys() - set(_SPECIAL))
    marks.warn()
    vocabulary = _learn(_lines(paths), _SPECIAL + letters, size, asked)
    tokenizer = bert_pipeline(vocabulary, lower_case, strips)
    tokenizer.add_special_tokens(_SPECIAL)
    frame(tokenizer)
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "vocabulary.json", asked)
    write_json(directory / "tokenizer_config.json", {**SPECIAL, **settings(lower_case, strips)})
    with replacing(directory / "tokenizer.json") as beside:  # last: the vocabulary is there
        tokenizer.save(str(beside))
    return directory


def _check_same(directory: Path, asked: dict[str, Any]) -> None:
    """InputError where the vocabulary that is there was made of something else."""
    if not (directory / "vocabulary.json").exists():
        log(f"warning: {directory}: the vocabulary there is kept; what it was made of is not noted")
        return
    then = read_json(directory / "vocabulary.json")
    for name, value in asked.items():
        if then.get(name) != value:
            names = lambda files: ", ".join(str(file.get("name")) for file in files)
            was, now = (names(then.get(name) or ()), names(value)) if name == "corpus" else (then.get(name), value)
            more = ", which have changed since" if was == now else f", and {now} is asked for"
            raise InputError(f"{directory}: holds a vocabulary with {name} {was}{more}; ask for the same, remove it, or name another --out")


def _learn(lines: Iterator[str], first: list[str], size: int, asked: dict[str, Any]) -> dict[str, int]:
    """{piece: id} of up to `size` pieces, `first` those of the lowest ids; pieces of one letter are
    always among them."""
    tokenizer = bert_pipeline({}, asked["lower_case"], asked["strip_accents"])
    tokenizer.train_from_iterator(lines, trainers.WordPieceTrainer(vocab_size=size, special_tokens=first, show_progress=False))
    return tokenizer.get_vocab()


def _lines(files: Sequence[Path]) -> Iterator[str]:
    for file in files:
        yield from read_corpus(file)


# -------------------------------------------------------------------------------------------------------------------- marks


@lru_cache(1 << 16)
def needs_marks(word: str) -> bool:
    """Whether a word has a mark (Unicode's category Mn, of the word decomposed) that its language
    does not do without.

    That is any but: accents on Latin and Greek letters (not Vietnamese's and Yoruba's horn, hook
    and dot below); the points of Hebrew and Arabic; marks on what is no letter.
    """
    letter = ""
    for c in unicodedata.normalize("NFD", word):
        category = unicodedata.category(c)
        if category[0] != "M":
            letter = c if category[0] == "L" else ""
        elif category == "Mn" and letter and c not in _OPTIONAL | (_ACCENTS if _is_latin_or_greek(letter) else set()):
            return True
    return False


def _is_latin_or_greek(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(("LATIN", "GREEK"))


class _Marks:
    """Counts the words that need their marks, in lines that pass."""

    def __init__(self) -> None:
        self.words = self.needing = 0
        self.examples: list[str] = []

    def seen(self, files: Sequence[Path]) -> Iterator[str]:
        for line in _lines(files):
            words = line.split()
            self.words += len(words)
            if not line.isascii():
                needing = [word for word in words if needs_marks(word)]
                self.needing += len(needing)
                if len(self.examples) < 3:
                    self.examples = list(dict.fromkeys([*self.examples, *needing]))[:3]
            yield line

    def warn(self) -> None:
        if self.needing > _NEEDED_SHARE * self.words:
            shown = ", ".join(f"{word[:20]} -> {_stripped(word[:20])}" for word in self.examples)
            log(
                f"warning: {self.needing / self.words:.0%} of the corpus's words lose marks that their language needs ({shown}); "
                "--keep-accents (or --cased) keeps them"
            )


def _stripped(word: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(c) != "Mn")
