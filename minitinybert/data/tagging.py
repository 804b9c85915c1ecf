"""Token classification: words with a label each, from CoNLL's columns or JSON lines, and the word
pieces that are asked for them.

    .conll .txt .tsv .bio    a word a line, columns by tabs or spaces, an empty line between sentences: the word first, its label last
    .conllu                  the same, with Universal Dependencies' columns: FORM and UPOS
    .jsonl .parquet          a sentence a row: "tokens", a list of words, and "tags", a list of labels

A word is asked for at its first piece (BERT, section 5.3). A sentence longer than the model is cut
between words into several, so that no word is without an answer.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..engine.batch import Batch, asking
from ..errors import InputError
from ..files import replacing
from ..progress import log
from . import entities
from .batching import EncodedExamples
from .glue import Column, Task, find_file, text_of
from .tables import open_table
from .text import on_one_line, read_lines
from .tokenizer import Tokenizer

_COLUMNS = (".conll", ".conllu", ".txt", ".tsv", ".bio")
_LISTS = (".jsonl", ".parquet")
_NAMES = "tokens", "tags"  # of JSON's entries, where nobody gives others
_UNIVERSAL = Column("FORM", 1), Column("UPOS", 3)  # of a .conllu
_SPLITS = {"train": "train", "dev": "dev", "test": "test"}


@dataclass(frozen=True)
class Tagging(Task):
    """A task whose answer is a label for each word; `text_columns` is one column of words."""

    head: ClassVar[str] = "tokens"


class Tagged(NamedTuple):
    """One file's sentences. tags: a label for each word, None where the file has none; lines: on
    which each sentence begins."""

    words: list[list[str]]
    tags: list[list[str]] | None
    lines: list[int]
    path: Path


def tagging_task(
    directory: Path, word_column: str | None = None, label_column: str | None = None, labels: Sequence[str] | None = None
) -> Tagging:
    """Columns are names, or numbers from 1 in CoNLL's files (without them: as the module says). The
    labels are those of the training file in alphabetical order, O first, where they are not given.
    Metrics are those of entities where the labels are B-…, I-… and O, else the words' accuracy.

    InputError where there are fewer than two labels.
    """
    columns = _column(word_column, _NAMES[0], 0), _column(label_column, _NAMES[1], -1)
    task = Tagging("tokens", columns[:1], columns[1], tuple(labels or ()), ("accuracy",), _SPLITS, leaderboard="tokens")
    if labels is None:
        training = read_tagged(task, Path(directory), "train")
        found = {tag for tags in training.tags or () for tag in tags}
        if len(found) < 2:
            raise InputError(f"{training.path}: {len(found)} different labels; at least two are needed")
        task = replace(task, labels=tuple(sorted(found, key=lambda tag: (tag != "O", tag))))
    assert task.labels is not None
    marks = entities.are_marks(task.labels)
    return replace(task, metrics=("f1", "precision", "recall", "accuracy")) if marks else task


def _column(given: str | None, name: str, place: int) -> Column:
    if given is None:
        return Column(name, place)
    return Column(given, int(given) - 1 if given.isdecimal() and int(given) > 0 else None)


# -------------------------------------------------------------------------------------------------------------------- reading


def read_tagged(task: Task, directory: Path, split: str) -> Tagged:
    """The sentences of one split; a test file may have no labels.

    InputError names file and line of a row that lacks its label or has one too many, and says what
    was looked for where there is no file.
    """
    path = find_file(task, directory, split, (*_COLUMNS, *_LISTS))
    read = _rows_of_lists(task, path) if path.suffix in _LISTS else _sentences_of_columns(task, path)
    words: list[list[str]] = []
    tags: list[list[str]] = []
    lines = []
    for line, sentence, labels in read:
        if labels is not None and len(labels) != len(sentence):
            raise InputError(f"{path}, line {line}: {len(sentence)} words, but {len(labels)} labels")
        if labels is None and (tags or not split.startswith("test")):
            raise InputError(f"{path}, line {line}: words without labels")
        if labels is not None and words and not tags:
            raise InputError(f"{path}, line {line}: words with labels, where those before have none")
        words.append(sentence)
        lines.append(line)
        if labels is not None:
            tags.append(labels)
    if not words:
        raise InputError(f"{path}: no sentences in it")
    return Tagged(words, tags or None, lines, path)


def _sentences_of_columns(task: Task, path: Path) -> Iterator[tuple[int, list[str], list[str] | None]]:
    """(line, words, labels or None) of each sentence of a file of columns."""
    universal = path.suffix == ".conllu"
    columns = [task.text_columns[0], task.label_column]
    if universal:  # where nobody named others
        columns = [known if own.name in _NAMES else own for own, known in zip(columns, _UNIVERSAL, strict=True)]
    for column in columns:
        if column.place is None:
            raise InputError(f"{path}: its columns have no names; give the number of {column.name!r}, counted from 1")
    word, label = (column.place or 0 for column in columns)
    sentence: list[tuple[int, str, str]] = []
    for number, line in chain(read_lines(path), [(0, "")]):
        if not line.strip():
            if sentence:
                yield sentence[0][0], *_words_and_labels(sentence, path)
            sentence = []
            continue
        if line.startswith("-DOCSTART-") or (universal and line.startswith("#")):
            continue
        row = line.split("\t") if "\t" in line else line.split()
        if universal and not row[0].isdecimal():  # 3-4, what two words are written as; 5.1, a word that is not written
            continue
        if word >= len(row):
            raise InputError(f"{path}, line {number}: {len(row)} columns; the word is looked for in column {word + 1}")
        there = label < len(row) and label % len(row) != word
        sentence.append((number, row[word].strip(), row[label].strip() if there else ""))


def _words_and_labels(sentence: Sequence[tuple[int, str, str]], path: Path) -> tuple[list[str], list[str] | None]:
    bare = [(number, word) for number, word, label in sentence if not label]
    if 0 < len(bare) < len(sentence):
        raise InputError(f"{path}, line {bare[0][0]}: {bare[0][1]!r} has no label")
    return [word for _, word, _ in sentence], None if bare else [label for _, _, label in sentence]


def _rows_of_lists(task: Task, path: Path) -> Iterator[tuple[int, list[str], list[str] | None]]:
    """(line, words, labels or None) of each row that holds lists."""
    table = open_table(path)
    header = table.header or []
    names = [task.text_columns[0].name, task.label_column.name]
    if names[0] not in header:
        raise InputError(f"{path}: no column {names[0]!r}; the rows have {', '.join(header)}")
    places = [header.index(name) if name in header else None for name in names]
    for line, row in table.rows:
        lists = [None if place is None else row[place] for place in places]
        for name, value in zip(names, lists, strict=True):
            if value is not None and not (isinstance(value, (list, np.ndarray)) and len(value)):
                raise InputError(f"{path}, line {line}: {name} is {value!r}; a list is needed, with an entry for each word")
        if lists[0] is None:
            raise InputError(f"{path}, line {line}: no {names[0]}")
        words = [text_of(value, "a word", path, line) for value in lists[0]]
        yield line, words, None if lists[1] is None else [_tag(task, value, path, line) for value in lists[1]]


def _tag(task: Task, value: Any, path: Path, line: int) -> str:
    """A label as text. A number counts the labels that were given, where these are no numbers
    themselves: so has the Hugging Face hub them."""
    labels = task.labels or ()
    if isinstance(value, (int, np.integer)) and str(value) not in labels and 0 <= value < len(labels):
        return labels[int(value)]
    return text_of(value, "a label", path, line)


# ------------------------------------------------------------------------------------------------------------------- encoding


@dataclass(frozen=True, repr=False)
class TaggedExamples(EncodedExamples):
    """Sentences, or pieces of long ones, as ids. places: n arrays (w_i,) of where the first piece of
    each word stands; classes: n arrays (w_i,) int64, 0 where none is known."""

    places: Sequence[np.ndarray] = ()
    classes: Sequence[np.ndarray] = ()
    sentence: Sequence[int] = ()  # (n,) which each belongs to, ascending
    words: Sequence[Sequence[str]] = ()  # by sentence
    tags: Sequence[Sequence[str]] | None = None  # by sentence, as the file has them

    @property
    def labelled(self) -> bool:
        return self.tags is not None

    @property
    def separable(self) -> bool:
        return False  # how many words a batch has does not follow from its lengths

    @property
    def settings(self) -> dict[str, Any]:
        digest = 0
        for array in (*self.places, *self.classes):
            digest = zlib.crc32(array.tobytes(), digest)
        return {**super().settings, "words and labels": f"{digest:08x}"}

    def batch(self, indices: np.ndarray, epoch: int = 0) -> Batch:
        """As of any examples, and which rows are words."""
        batch = super().batch(indices, epoch)
        return asking(batch, [self.places[i] for i in batch.sentences], [self.classes[i] for i in batch.sentences])

    def by_sentence(self, answers: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Each sentence's (w,) of answers, one array an example; (0,) of one without words."""
        parts: list[list[np.ndarray]] = [[] for _ in self.words]
        for i, answer in zip(self.sentence, answers, strict=True):
            parts[i].append(answer)
        return [np.concatenate(own) if own else np.empty(0, np.int64) for own in parts]


def read_words(task: Task, directory: Path, split: str, tokenizer: Tokenizer, max_length: int, segments: int) -> TaggedExamples:
    """One split's sentences as ids. A label that the task does not have is an error of a training
    file; of what is judged it is an answer that no model gives."""
    tagged = read_tagged(task, directory, split)
    known = {label: i for i, label in enumerate(task.labels or ())}
    strange: dict[str, int] = {}
    for line, tags in zip(tagged.lines, tagged.tags or (), strict=False):
        for tag in tags:
            if tag not in known:
                strange.setdefault(tag, line)
    if strange and split == "train":
        label, line = next(iter(strange.items()))
        raise InputError(f"{tagged.path}, the sentence that begins on line {line}: label {label!r}; the task has {', '.join(known)}")
    if strange:
        log(f"warning: {tagged.path}: {len(strange)} labels that no model of these labels gives, such as {next(iter(strange))!r}")
    classes = None if tagged.tags is None else [[known.get(tag, 0) for tag in tags] for tags in tagged.tags]
    encoded = encode_words(tagged.words, tokenizer, max_length, classes)
    tokenizer.check_known(encoded.input_ids, tagged.path)
    return replace(encoded, tags=tagged.tags)


def encode_words(
    words: Sequence[Sequence[str]], tokenizer: Tokenizer, max_length: int, classes: Sequence[Sequence[int]] | None = None
) -> TaggedExamples:
    """[CLS] pieces [SEP] of each sentence, of at most max_length; a longer one becomes several."""
    room = max_length - 2
    ids, places, labels, sentence = [], [], [], []
    for i, pieces in enumerate(tokenizer.encode_words(words)):
        start = 0
        while start < len(pieces):
            taken, at, firsts = [tokenizer.cls_id], start, []
            while at < len(pieces) and len(taken) - 1 + min(len(pieces[at]), room) <= room:
                firsts.append(len(taken))
                taken += pieces[at][:room]
                at += 1
            ids.append(np.array([*taken, tokenizer.sep_id], np.int32))
            places.append(np.array(firsts))
            labels.append(np.array(classes[i][start:at] if classes is not None else [0] * (at - start), np.int64))
            sentence.append(i)
            start = at
    return TaggedExamples(ids, [np.zeros_like(own) for own in ids], None, None, tokenizer.pad_id, places, labels, sentence, words)


def write_tags(path: Path, words: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> None:
    """A file of two columns, as `read_tagged` reads them: a word's own tabs and line ends are
    spaces in it."""
    word_of = lambda word: on_one_line(word).replace("\t", " ")
    with replacing(path) as beside:
        lines = lambda sentence, labels: (f"{word_of(word)}\t{tag}\n" for word, tag in zip(sentence, labels, strict=True))
        sentences = ("".join(lines(*pair)) for pair in zip(words, tags, strict=True))
        beside.write_text("\n".join(sentences), encoding="utf-8", newline="\n")
