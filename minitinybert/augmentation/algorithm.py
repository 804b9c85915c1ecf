"""More examples from few: some words replaced by what BERT would say there, or by a neighbour among
word vectors. Two recipes.

paper         Algorithm 1 of arXiv 1909.10351: for n = 1 … N_a, for each word i of the sentence x, from left to right,
                  C <- x[i] is a single piece ? BERT's K most probable words at i, masked in x_m : the K words nearest to x[i] in GloVe
                  p ~ U(0, 1);  p <= p_t:  x_m[i] <- a word of C, drawn uniformly
              p is drawn first and BERT asked only where p <= p_t: the same distribution, at 0.4 of
              the cost.
huawei-2019   the released code: only words of a-z that are no stop words; C once a sentence, from the original, which is segment B of
              the masked one; K counts ##pieces, which are then dropped; GloVe's first 100,000
              words; equal copies are left out.

In both: special tokens, [UNK] and ##pieces are no candidates. A word that is [UNK] is no single
piece. What is not replaced stays as it is written, spaces and case too (the released code
lower-cases and re-spaces the sentence). Vectors are looked up by the word as written, then in lower
case; huawei-2019 by BERT's basic token. A word without candidates stays. A replacement may be the
word itself.

Pairs. Each side is a sentence of its own. paper: copy n is, one in three each, (A_n, B), (A, B_n)
or (A_n, B_n). huawei-2019: all (A_n, B), then all (A, B_n); the released code joined every B_n with
the last A_n.

Draws are keyed by (seed, example, side, copy, word): they do not depend on who draws them, or when.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from tokenizers.normalizers import BertNormalizer

from ..engine.random import key, row_keys
from ..errors import InputError
from .candidates import Question
from .words import Replacement, Word, WordReader, apply

RECIPES = ("paper", "huawei-2019")
HUAWEI_VECTORS = 100_000
_PAPER_COPIES = 20
_HUAWEI_COPIES = {"cola": 30, "mrpc": 30, "sts-b": 30, "rte": 30, "sst-2": 20, "qnli": 20, "mnli": 10, "qqp": 10}
_HUAWEI_OTHER_COPIES = 30  # the released script's default
_REPLACE, _PICK, _SIDES = range(3)  # what a random draw is for

# The released code's list, as far as its words are of a-z (others are not eligible anyhow).
_STOP_LIST = """
    i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it its itself they
    them their theirs themselves this that these those am is are was were be been being have has had having do does did doing a an the and
    but if or because as until while of at by for with about against between into through during before after above below to from up down
    in out on off over under again further then once here there all any both each few more most other some such no nor not only own same
    so than too very s t can will just don should now d ll m o re ve y ain aren couldn didn doesn hadn hasn haven isn ma mightn mustn needn
    shan shouldn wasn weren won wouldn"""
STOP_WORDS = frozenset(_STOP_LIST.split())

Choices = dict[int, tuple[str, str]]  # position -> (new word, "bert" or "glove")
Ask = Callable[[Sequence[Question]], Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Settings:
    """copies N_a, probability p_t, candidates K; original: the source row comes first."""

    recipe: str = "paper"
    copies: int = _PAPER_COPIES
    probability: float = 0.4
    candidates: int = 15
    original: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise InputError(f"--recipe {self.recipe}: choose one of {', '.join(RECIPES)}")
        if self.copies < 1 or self.candidates < 1 or not 0 <= self.probability <= 1:
            raise InputError(
                f"--copies {self.copies} --candidates {self.candidates} --probability {self.probability:g}: "
                "at least one copy and candidate, and a probability from 0 to 1 are needed"
            )


def copies_of(recipe: str, task: str) -> int:
    """The recipe's number of copies for a task."""
    return _PAPER_COPIES if recipe == "paper" else _HUAWEI_COPIES.get(task, _HUAWEI_OTHER_COPIES)


class Row(NamedTuple):
    """A row of the result: of which example, its copy (0: the original), and what was replaced in
    each of its texts."""

    example: int
    copy: int
    texts: tuple[str, ...]
    replacements: tuple[tuple[Replacement, ...], ...]


class Draws(NamedTuple):
    """One sentence's draws: p ~ U(0, 1), and the place in [0, 1) of the word that is picked from C."""

    p: np.ndarray  # (copies, words)
    pick: np.ndarray  # (copies, words)


def draws(seed: int, example: int, side: int, copies: int, words: int) -> Draws:
    """The draws of an example's side 0 or 1, for copies 1 … `copies` and words 0 … `words` − 1."""
    cells = (np.arange(1, copies + 1, dtype=np.uint64)[:, None] << np.uint64(32)) + np.arange(words, dtype=np.uint64)
    parent = key(seed, example, side)
    unit = lambda part: (row_keys(parent, cells, part) >> np.uint64(11)) * 2.0**-53
    return Draws(unit(_REPLACE), unit(_PICK))


def sides(seed: int, example: int, copies: int) -> np.ndarray:
    """(copies, 2) bool: which sides of a pair each copy replaces words in; never none."""
    kind = row_keys(key(seed, example), np.arange(1, copies + 1, dtype=np.uint64), _SIDES) % np.uint64(3)
    return np.stack([kind != 1, kind != 0], axis=1)


class Sentence(NamedTuple):
    text: str
    words: list[Word]
    draws: Draws


class Augmenter:
    """Turns examples into rows. ask: what BERT would say; neighbours: candidates of GloVe by the
    word as it is written."""

    def __init__(self, reader: WordReader, ask: Ask, neighbours: Mapping[str, Sequence[str]], settings: Settings):
        self.reader, self.ask, self.neighbours, self.settings = reader, ask, neighbours, settings
        self.mask_id = reader.tokenizer.mask_id

    def rows(self, examples: Sequence[tuple[str, ...]], first: int = 0) -> list[Row]:
        """The rows of examples (one or two texts each), example by example; `first` is the number
        of the first in its file."""
        words = iter(self.reader.split([text for texts in examples for text in texts]))
        sentences = [[self._sentence(e, i, text, next(words)) for i, text in enumerate(texts)] for e, texts in enumerate(examples, first)]
        make = self._paper if self.settings.recipe == "paper" else self._huawei
        return [row for rows in make(sentences, first) for row in rows if row.copy or self.settings.original]

    def _sentence(self, example: int, side: int, text: str, words: list[Word]) -> Sentence:
        return Sentence(text, words, draws(self.settings.seed, example, side, self.settings.copies, len(words)))

    # ---------------------------------------------------------------------------------------------------------------- paper

    def _paper(self, examples: list[list[Sentence]], first: int) -> list[list[Row]]:
        jobs = []  # (example, copy, side)
        for e, sentences in enumerate(examples):
            changed = sides(self.settings.seed, first + e, self.settings.copies)[:, : len(sentences)]
            if len(sentences) == 1:
                changed[:] = True
            jobs += [(e, int(n), int(side)) for n, side in np.argwhere(changed)]
        copies = [self._algorithm_1(examples[e][side], n) for e, n, side in jobs]
        chosen = dict(zip(jobs, answer_together(copies, self.ask), strict=True))
        rows = []
        for e, sentences in enumerate(examples):
            choices = [[chosen.get((e, n, side), {}) for side in range(len(sentences))] for n in range(self.settings.copies)]
            original: list[Choices] = [{} for _ in sentences]
            rows.append([self._row(first + e, n, sentences, c) for n, c in enumerate([original, *choices])])
        return rows

    def _algorithm_1(self, x: Sentence, n: int) -> Generator[Question, Sequence[str], Choices]:
        """Copy n of a sentence: yields what it asks BERT, is sent the candidates, returns what it
        replaced."""
        x_m = [word.ids for word in x.words]
        chosen: Choices = {}
        for i in np.flatnonzero(x.draws.p[n] <= self.settings.probability).tolist():
            if self.reader.is_piece(x.words[i]):
                C, source = (yield self._masked(x_m, i)), "bert"
            else:
                C, source = self.neighbours.get(x.words[i].text, ()), "glove"
            if C:
                chosen[i] = C[int(x.draws.pick[n, i] * len(C))], source
                x_m[i] = self.reader.pieces(chosen[i][0])
        return chosen

    def _masked(self, pieces: Sequence[tuple[int, ...]], i: int, context: tuple[int, ...] = ()) -> Question:
        before = [id for word in pieces[:i] for id in word]
        after = [id for word in pieces[i + 1 :] for id in word]
        return Question((*before, self.mask_id, *after), len(before), context)

    # --------------------------------------------------------------------------------------------------------- the released code

    def _huawei(self, examples: list[list[Sentence]], first: int) -> list[list[Row]]:
        candidates = iter(self._huawei_candidates([sentence for sentences in examples for sentence in sentences]))
        rows = []
        for e, sentences in enumerate(examples, first):
            variants = [self._variants(sentence, next(candidates)) for sentence in sentences]
            made = [self._row(e, 0, sentences, [{} for _ in sentences])]
            for side, copies in enumerate(variants):
                for n, chosen in copies.items():
                    made.append(self._row(e, n, sentences, [chosen if other == side else {} for other in range(len(sentences))]))
            rows.append(made)
        return rows

    def _huawei_candidates(self, sentences: list[Sentence]) -> list[dict[int, tuple[Sequence[str], str]]]:
        """For each sentence the candidates of its eligible words, by position; BERT is asked once,
        for all of them."""
        found: list[dict[int, tuple[Sequence[str], str]]] = []
        places, questions = [], []
        for sentence in sentences:
            found.append({})
            pieces = [word.ids for word in sentence.words]
            context = tuple(id for word in pieces for id in word)
            for i, word in enumerate(sentence.words):
                if not is_eligible(word.text):
                    continue
                if self.reader.is_piece(word):
                    places.append((found[-1], i))
                    questions.append(self._masked(pieces, i, context))
                else:
                    found[-1][i] = self.neighbours.get(word.text, ()), "glove"
        for (candidates, i), answer in zip(places, self.ask(questions), strict=True):
            candidates[i] = answer, "bert"
        return found

    def _variants(self, sentence: Sentence, candidates: Mapping[int, tuple[Sequence[str], str]]) -> dict[int, Choices]:
        """What copies 1 … N replace, but for those that are equal to one before them, or to the
        original."""
        original = tuple(basic_token(word.text) for word in sentence.words)
        seen, variants = {original}, {}
        for n in range(self.settings.copies):
            chosen = {
                i: (C[int(sentence.draws.pick[n, i] * len(C))], source)
                for i, (C, source) in sorted(candidates.items())
                if C and sentence.draws.p[n, i] <= self.settings.probability
            }
            copy = tuple(chosen[i][0] if i in chosen else word for i, word in enumerate(original))
            if copy not in seen:
                seen.add(copy)
                variants[n + 1] = chosen
        return variants

    def _row(self, example: int, copy: int, sentences: Sequence[Sentence], chosen: Sequence[Choices]) -> Row:
        made = tuple(tuple(self.reader.replacements(x.text, x.words, c)) for x, c in zip(sentences, chosen, strict=True))
        return Row(example, copy, tuple(apply(x.text, r) for x, r in zip(sentences, made, strict=True)), made)


def answer_together(copies: Sequence[Generator[Question, Sequence[str], Choices]], ask: Ask) -> list[Choices]:
    """Run the copies side by side: in each round every one that is not done asks its next question,
    all in one call."""
    done: list[Choices] = [{} for _ in copies]
    answers: dict[int, Sequence[str] | None] = dict.fromkeys(range(len(copies)))
    while answers:
        questions: dict[int, Question] = {}
        for c, answer in answers.items():
            try:
                questions[c] = copies[c].send(answer) if answer is not None else next(copies[c])
            except StopIteration as stop:
                done[c] = stop.value
        answers = dict(zip(questions, ask(list(questions.values())), strict=True)) if questions else {}
    return done


_basic = BertNormalizer()  # clean, lower-case, without accents: the released code's basic tokens


def basic_token(word: str) -> str:
    return _basic.normalize_str(word).strip()


def is_eligible(word: str) -> bool:
    """Whether the released code may replace a word: of a-z alone, and no stop word."""
    token = basic_token(word)
    return token.isascii() and token.isalpha() and token not in STOP_WORDS


def vector_names(word: str, recipe: str) -> tuple[str, ...]:
    """Under which names a word is looked for among vectors, the first one there is."""
    return (word, word.lower()) if recipe == "paper" else (basic_token(word),)
