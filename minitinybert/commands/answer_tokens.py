"""What a model with a head of tokens says of texts and of a task's test files: a label for each
word, an answer to each question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.entities import are_marks, entities
from ..data.squad import Question, Questions, Squad, Windows, encode_questions, write_answers
from ..data.tagging import TaggedExamples, encode_words, write_tags
from ..data.text import on_one_line
from ..data.tokenizer import Tokenizer
from ..engine.parallel import Workers
from ..errors import InputError
from ..model.bert import Bert
from ..training import evaluation
from .kinds import find_answers, tag_words, threshold_of
from .task_data import TaskData


def label_texts(model: Bert, texts: Sequence[str], workers: Workers, max_length: int) -> list[dict[str, Any]]:
    """For each text its words, which spaces divide, their labels and how probable each is; where
    the labels are of entities, these by their kind, text and the numbers of their words. A blank text
    has no words."""
    words = [text.split() for text in texts]
    if not any(words):
        raise InputError("no text has a word; give at least one")
    tokenizer = Tokenizer.load(model.tokenizer_files)
    examples = encode_words(words, tokenizer, max_length)
    tokenizer.check_known(examples.input_ids, "the texts", must=False)
    logits = [z.astype(np.float64) for z in evaluation.token_logits(model, examples, workers)]
    shares = [np.exp(z - z.max(axis=-1, keepdims=True)) for z in logits]
    best = examples.by_sentence([z.argmax(axis=-1) for z in logits])
    sure = examples.by_sentence([p.max(axis=-1) / p.sum(axis=-1) for p in shares])
    names = model.config.labels
    answers = []
    for text, own, classes, probabilities in zip(texts, words, best, sure, strict=True):
        labels = [names[i] for i in classes]
        answer = {"text": text, "words": own, "labels": labels, "probabilities": [round(float(p), 6) for p in probabilities]}
        if are_marks(names):
            parts = [{"kind": kind, "text": " ".join(own[i : j + 1]), "first": i, "last": j} for kind, i, j in entities(labels)]
            answer["entities"] = parts
        answers.append(answer)
    return answers


def answer_texts(model: Bert, texts: Sequence[str], workers: Workers, max_length: int, task: Squad) -> list[dict[str, Any]]:
    """For each text, `question ||| document`, the answer (nothing where there is none), its
    characters in the document, from … to, and by how much it is better than no answer (None where
    there is no document: a blank text)."""
    questions: list[Question] = []
    for text in texts:
        question, bar, context = (part.strip() for part in text.partition("|||"))
        if text.strip() and not (bar and question and context):
            raise InputError(f"{text[:40]!r}: a question and a document are needed: 'question ||| document'")
        questions.append(Question(str(len(questions)), question, context, [], False))
    read = Questions(Path("<arguments>"), questions, False)
    tokenizer = Tokenizer.load(model.tokenizer_files)
    examples = encode_questions(task, read, tokenizer, max_length, model.config.type_vocab_size)
    tokenizer.check_known(examples.input_ids, "the texts", must=False)
    answers = []
    for text, best in zip(texts, find_answers(evaluation.token_logits(model, examples, workers), task, examples), strict=True):
        given = best.or_none(threshold_of(model.config, task))
        place = {"start": given.begin, "end": given.end} if given.text else {"start": None, "end": None}
        margin = round(given.margin, 6) if math.isfinite(given.margin) else None
        answers.append({"text": text, "answer": given.text, **place, "margin": margin})
    return answers


def shown(answer: dict[str, Any]) -> str:
    """An answer as lines: of words two columns, word and label, and an empty line; to a question,
    itself and how sure it is."""
    if "answer" in answer:
        margin = "" if answer["margin"] is None else f"{answer['margin']:.4f}"
        return f"{on_one_line(answer['answer']) or '(no answer)'}\t{margin}\t{on_one_line(answer['text'])}"
    return "".join(f"{word}\t{label}\n" for word, label in zip(answer["words"], answer["labels"], strict=True))


def write_found(model: Bert, files: TaskData, split: str, out: Path, workers: Workers) -> list[str]:
    """The test file's answers, as the official scripts take them."""
    examples, task = files.split(split), files.task
    assert isinstance(examples, Windows) and examples.questions is not None
    answers = find_answers(evaluation.token_logits(model, examples, workers), task, examples)
    return write_answers(Path(out), examples.questions, answers, threshold_of(model.config, task))


def write_words(model: Bert, files: TaskData, split: str, out: Path, workers: Workers) -> str:
    """The test file's words with their labels, in CoNLL's columns."""
    examples = files.split(split)
    assert isinstance(examples, TaggedExamples)
    path = Path(out) / f"{files.task.files[split]}.conll"
    logits = evaluation.token_logits(model, examples, workers)
    write_tags(path, examples.words, tag_words(logits, files.task.labels or (), examples))
    return str(path)
