"""SQuAD 1.1 and 2.0: questions whose answer is a stretch of a document, or, in 2.0, is not there.

    .json              the official files: articles of paragraphs of questions
    .jsonl .parquet    a question a row, as the Hugging Face hub has them: id, context, question, answers {text, answer_start}

As BERT reads them: [CLS] question [SEP] a window of the document [SEP]. A document longer than the
model has several windows, one every doc_stride pieces; an answer is looked for in each, and the
best of all is taken. [CLS] stands for no answer. Every piece knows which characters of the document
it is, so that an answer is the document's own text, whatever the tokenizer did to it.
"""

from __future__ import annotations

import json
import math
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..errors import InputError
from ..files import parse_json, replacing
from ..progress import log
from .batching import EncodedExamples
from .glue import Column, Task
from .tables import open_table
from .text import opened
from .tokenizer import Tokenizer

_ENDINGS = (".json", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Squad(Task):
    """A task whose answers are stretches of documents. Numbers are pieces, as BERT's (SQuAD's
    section 4.2 and its code): defaults are the paper's.

    null_threshold: there is no answer where none is better than the best by more; None: as the
    model's config says. `unanswerable`: whether the training file has questions without an answer.
    """

    head: ClassVar[str] = "spans"
    max_length: ClassVar[int] = 384
    doc_stride: int = 128
    max_query_length: int = 64
    max_answer_length: int = 30
    null_threshold: float | None = None
    unanswerable: bool = False


class Question(NamedTuple):
    id: str
    question: str
    context: str
    answers: list[tuple[str, int]]  # text, and its first character's place in the context (−1 where not said); none: no answer
    known: bool  # whether the file says the answers


class Questions(NamedTuple):
    path: Path
    questions: list[Question]
    second: bool  # of version 2.0: some may have no answer

    @property
    def labelled(self) -> bool:
        return all(question.known for question in self.questions)


def squad_task(unanswerable: bool = False, **settings: Any) -> Squad:
    """InputError where a number is not above 0."""
    files = {"train": "train", "dev": "dev", "test": "test"}
    given = {name: value for name, value in settings.items() if value is not None}
    for name, value in given.items():
        if name != "null_threshold" and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: a whole number above 0 is needed")
    text = Column("question", None), Column("context", None)
    labels = ("LABEL_0", "LABEL_1")  # the two logits of a piece, as transformers names them
    return Squad("squad", text, Column("answers", None), labels, ("f1", "exact_match"), files, unanswerable=unanswerable, **given)


# -------------------------------------------------------------------------------------------------------------------- reading


def read_questions(data: Path, split: str) -> Questions:
    """A split's file: train*, dev* or test* in a directory, or `data` itself where that is a file
    (which is not trained on).

    InputError names the file, and the question, for whatever is not as SQuAD's files are.
    """
    path = _find(Path(data), split)
    rows: Iterator[tuple[str, dict[str, Any]]]
    version = ""
    if path.suffix == ".json":
        version, rows = _official(path)
    else:
        rows = _rows(path)
    questions, second = [], version.lstrip("v").startswith("2")
    for where, row in rows:
        question, impossible = _question(row, where)
        questions.append(question)
        second |= impossible
    if not questions:
        raise InputError(f"{path}: no questions in it")
    return Questions(path, questions, second)


def _find(data: Path, split: str) -> Path:
    if data.is_file():
        if split == "train":
            raise InputError(f"{data}: a file; training needs a directory with train*.json and dev*.json")
        return data
    if not data.is_dir():
        raise InputError(f"{data}: no such file or directory; --data is a directory with train*.json and dev*.json, or a file to answer")
    found = sorted(path for path in data.glob(f"{split}*") if path.suffix in _ENDINGS and path.is_file())
    if len(found) > 1:
        raise InputError(f"{data}: holds {' and '.join(path.name for path in found)}; keep the one that is meant")
    if not found:
        raise InputError(f"{data}: no {split}*{{{','.join(_ENDINGS)}}} in it")
    return found[0]


def _official(path: Path) -> tuple[str, Iterator[tuple[str, dict[str, Any]]]]:
    """The version, and (where it stands, the question with its context) of each."""
    try:
        with opened(path) as file:
            whole = parse_json(file.read().removeprefix(BOM_UTF8))
    except ValueError as error:  # UnicodeDecodeError too
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(whole, dict) or not isinstance(whole.get("data"), list):
        raise InputError(f"{path}: no list 'data' in it; SQuAD's files have one")

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        for a, article in enumerate(whole["data"]):
            for p, paragraph in enumerate(_list(article, "paragraphs", f"{path}, data[{a}]")):
                where = f"{path}, data[{a}].paragraphs[{p}]"
                for q, row in enumerate(_list(paragraph, "qas", where)):
                    at = f"{where}.qas[{q}]"
                    yield at, {**_object(row, at), "context": paragraph.get("context")}

    return str(whole.get("version", "")), rows()


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    table = open_table(path)
    for line, fields in table.rows:
        yield f"{path}, line {line}", dict(zip(table.header or (), fields, strict=False))


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: {str(value)[:40]!r}, where an object belongs")
    return value


def _list(value: Any, name: str, where: str) -> list[Any]:
    found = _object(value, where).get(name)
    if not isinstance(found, list):
        raise InputError(f"{where}: no list {name!r} in it")
    return found


def _question(row: dict[str, Any], where: str) -> tuple[Question, bool]:
    """A question, and whether it is one of 2.0's that have no answer."""
    for name in ("question", "context"):
        if not isinstance(row.get(name), str):
            raise InputError(f"{where}: {name} is {row.get(name)!r}; a string is needed")
    answers = row.get("answers")
    known = answers is not None
    if isinstance(answers, dict):  # the hub's columns
        texts, starts = answers.get("text"), answers.get("answer_start")
        if not isinstance(texts, list) or (starts is not None and (not isinstance(starts, list) or len(starts) != len(texts))):
            raise InputError(f"{where}: answers needs a list 'text' and one as long, 'answer_start'")
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts or [None] * len(texts), strict=True)]
    if known and not isinstance(answers, list):
        raise InputError(f"{where}: answers is {answers!r}; a list is needed")
    found = []
    for answer in answers or ():
        text, start = _object(answer, where).get("text"), answer.get("answer_start")
        if not isinstance(text, str) or not (start is None or (isinstance(start, int) and not isinstance(start, bool))):
            raise InputError(f"{where}: answer {answer!r}; a 'text' and an 'answer_start', the number of a character, are needed")
        found.append((text, -1 if start is None else start))
    impossible = bool(row.get("is_impossible")) or (known and not found)
    id = row.get("id")
    return Question(where if id is None else str(id), row["question"], row["context"], [] if impossible else found, known), impossible


# ------------------------------------------------------------------------------------------------------------------- encoding


@dataclass(frozen=True, repr=False)
class Windows(EncodedExamples):
    """Windows as ids; labels (n, 2) int64: at which places of its window an answer begins and ends,
    both 0 where it is not in it. question, first, head: (n,) of each window the number of its
    question, its first piece of the document and the place where that stands."""

    question: Sequence[int] = ()
    first: Sequence[int] = ()
    head: Sequence[int] = ()
    spans: Sequence[np.ndarray] = ()  # by question: (P, 2) the characters of the document's pieces, from … to
    questions: Questions | None = None

    @property
    def labelled(self) -> bool:
        return self.questions is not None and self.questions.labelled

    def of_questions(self) -> list[list[int]]:
        """Each question's windows."""
        found: list[list[int]] = [[] for _ in self.spans]
        for window, question in enumerate(self.question):
            found[question].append(window)
        return found


def read_windows(task: Task, data: Path, split: str, tokenizer: Tokenizer, max_length: int, segments: int) -> Windows:
    """One split's questions as ids. Of a training file's, a question whose answer is not at its
    place in the context is left out, and that is said."""
    assert isinstance(task, Squad)
    read = read_questions(data, split)
    if split == "train":
        if not read.labelled:
            raise InputError(f"{read.path}: question {next(q.id for q in read.questions if not q.known)} has no answers to learn from")
        wrong = [q for q in read.questions if q.answers and not _in_place(q)]
        if len(wrong) == len(read.questions):
            raise InputError(f"{read.path}: no answer stands where its answer_start says; it counts the context's characters from 0")
        if wrong:
            log(f"warning: {read.path}: {len(wrong)} questions whose answer is not where it says, such as {wrong[0].id}, are left out")
            read = read._replace(questions=[q for q in read.questions if not q.answers or _in_place(q)])
    encoded = encode_questions(task, read, tokenizer, max_length, segments)
    tokenizer.check_known(encoded.input_ids, read.path)
    return encoded


def _in_place(question: Question) -> bool:
    text, start = question.answers[0]
    return bool(text.strip()) and start >= 0 and question.context[start : start + len(text)] == text


def encode_questions(task: Squad, read: Questions, tokenizer: Tokenizer, max_length: int, segments: int) -> Windows:
    """InputError where a question leaves no room for its document."""
    contexts = {context: i for i, context in enumerate(dict.fromkeys(q.context for q in read.questions))}
    documents = tokenizer.encode_spans(list(contexts))
    asked = tokenizer.encode_spans([q.question for q in read.questions])
    ids, types, labels, question, first, head = [], [], [], [], [], []
    for i, (own, (query, _)) in enumerate(zip(read.questions, asked, strict=True)):
        query = query[: task.max_query_length]
        pieces, spans = documents[contexts[own.context]]
        room = max_length - len(query) - 3
        if room < 1:
            raise InputError(f"--max-length {max_length} leaves no room for a text beside question {own.id}, of {len(query)} pieces")
        begin, end = _answer_pieces(own, spans)
        for start, length in windows(len(pieces), room, task.doc_stride):
            place = len(query) + 2
            inside = start <= begin and end < start + length
            labels.append((begin - start + place, end - start + place) if inside else (0, 0))
            ids.append(np.concatenate([[tokenizer.cls_id], query, [tokenizer.sep_id], pieces[start : start + length], [tokenizer.sep_id]]))
            types.append((np.arange(len(ids[-1])) >= place) & (segments > 1))
            question.append(i)
            first.append(start)
            head.append(place)
    ids, types = [row.astype(np.int32) for row in ids], [row.astype(np.int32) for row in types]
    spans_of = [documents[contexts[q.context]][1] for q in read.questions]
    return Windows(ids, types, np.array(labels, np.int64), None, tokenizer.pad_id, question, first, head, spans_of, read)


def windows(pieces: int, room: int, stride: int) -> list[tuple[int, int]]:
    """(first piece, how many) of each window of a document.

    >>> windows(10, 6, 3)
    [(0, 6), (3, 6), (6, 4)]
    """
    found = [(0, min(room, pieces))]
    while sum(found[-1]) < pieces:
        start = found[-1][0] + min(found[-1][1], stride)
        found.append((start, min(room, pieces - start)))
    return found


def _answer_pieces(question: Question, spans: np.ndarray) -> tuple[int, int]:
    """The document's first and last piece that have a character of the first answer; (−1, −1) where
    there is none."""
    if not question.answers or not _in_place(question) or not len(spans):
        return -1, -1
    text, start = question.answers[0]
    touched = np.flatnonzero((spans[:, 1] > start) & (spans[:, 0] < start + len(text)))
    return (int(touched[0]), int(touched[-1])) if len(touched) else (-1, -1)


# ------------------------------------------------------------------------------------------------------------------- answering


class Answer(NamedTuple):
    """The best stretch of a document: its characters, and by how much its score is above that of no
    answer. Of a document without a piece, nothing, by −∞."""

    text: str
    begin: int
    end: int
    margin: float

    def or_none(self, threshold: float | None) -> Answer:
        """Nothing, where no answer is better by more than the threshold."""
        return self if threshold is None or -self.margin <= threshold else Answer("", 0, 0, self.margin)


def best_answers(examples: Windows, logits: Sequence[np.ndarray], max_answer_length: int) -> list[Answer]:
    """Each question's, of its windows' logits (L, 2). A stretch's score is the sum of the logits of
    its first and last piece; it begins at a piece that has no more context in another window; no
    answer's is that of [CLS], in the window where it is least (BERT's code)."""
    assert examples.questions is not None
    return [
        _best(question.context, examples, own, logits, max_answer_length)
        for question, own in zip(examples.questions.questions, examples.of_questions(), strict=True)
    ]


def _best(context: str, examples: Windows, own: Sequence[int], logits: Sequence[np.ndarray], longest: int) -> Answer:
    spans = examples.spans[examples.question[own[0]]]
    lengths = [len(examples.input_ids[w]) - examples.head[w] - 1 for w in own]
    clearest = _window_of_most_context(len(spans), [examples.first[w] for w in own], lengths)
    score, begin, end = -math.inf, 0, 0
    for number, (w, length) in enumerate(zip(own, lengths, strict=True)):
        first, head = examples.first[w], examples.head[w]
        z = logits[w][head : head + length].astype(np.float64)
        starts = np.where(clearest[first : first + length] == number, z[:, 0], -np.inf)
        for more in range(min(longest, length)):
            sums = starts[: length - more] + z[more:, 1]
            at = int(sums.argmax())
            if sums[at] > score:
                score, begin, end = float(sums[at]), first + at, first + at + more
    none = min(float(logits[w][0].astype(np.float64).sum()) for w in own)
    if score == -math.inf:
        return Answer("", 0, 0, score)
    from_, to = int(spans[begin, 0]), int(spans[end, 1])
    return Answer(context[from_:to], from_, to, score - none)


def _window_of_most_context(pieces: int, firsts: Sequence[int], lengths: Sequence[int]) -> np.ndarray:
    """(pieces,) in which of the windows each piece has most on its poorer side (and then, the longer
    window; and then, the first)."""
    best, found = np.full(pieces, -np.inf), np.zeros(pieces, np.int64)
    for number, (first, length) in enumerate(zip(firsts, lengths, strict=True)):
        place = np.arange(length)
        context = np.minimum(place, length - 1 - place) + 0.01 * length
        own = slice(first, first + length)
        found[own] = np.where(context > best[own], number, found[own])
        best[own] = np.maximum(context, best[own])
    return found


# --------------------------------------------------------------------------------------------------------------------- writing


def write_answers(out: Path, questions: Questions, answers: Sequence[Answer], threshold: float | None) -> list[str]:
    """predictions.json, {id: text} as the official scripts take it, and null_odds.json, {id: by how
    much no answer is better}; their paths."""
    texts = {q.id: answer.or_none(threshold).text for q, answer in zip(questions.questions, answers, strict=True)}
    odds = {q.id: -answer.margin if math.isfinite(answer.margin) else 1e9 for q, answer in zip(questions.questions, answers, strict=True)}
    written = []
    for name, values in (("predictions.json", texts), ("null_odds.json", odds)):
        with replacing(Path(out) / name) as beside:
            beside.write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        written.append(str(Path(out) / name))
    return written
