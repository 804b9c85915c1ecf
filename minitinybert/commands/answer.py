"""What a trained model says: its metrics on a task, the labels of texts, the answers to a task's
test files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.batching import EncodedExamples
from ..data.glue import Examples, Task, write_predictions
from ..data.squad import Squad, squad_task
from ..data.tokenizer import Tokenizer
from ..errors import InputError
from ..machine import Machine
from ..model.bert import Bert
from ..model.config import Config
from ..training import evaluation
from .answer_tokens import answer_texts, label_texts, write_found, write_words
from .classifiers import check_classifier, check_labels, in_task_order
from .kinds import KINDS
from .task_data import TaskData, check_length, encode


def judge(model: Bert, task: Task, examples: EncodedExamples, machine: Machine) -> dict[str, float]:
    return KINDS[task.head].judge(model, task, examples, machine.workers)


def evaluate(
    model: str, task: Task, data: Path, machine: Machine, max_length: int | None = None, splits: Sequence[str] | None = None
) -> dict[str, dict[str, float]]:
    """{split: {metric: value}} of a model on a task's labelled files, by default its dev ones (MNLI
    has two)."""
    judged, files = _judged(model, task, data, machine, max_length)
    results = {}
    for split in splits or task.dev_splits:
        examples = files.split(split)
        if not examples.labelled:
            raise InputError(f"{data}: split {split} has no labels; nothing to compare with")
        results[split] = judge(judged, task, examples, machine)
    return results


def _judged(model: str, task: Task, data: Path, machine: Machine, max_length: int | None) -> tuple[Bert, TaskData]:
    """A model with a classifier for the task, its labels in the task's order, and the task's files
    in its ids."""
    loaded = Bert.load(model)
    check_classifier(loaded.config, model, task.head)
    check_labels(loaded, task, model)
    judged = in_task_order(loaded, task).to(machine.xp)
    return judged, TaskData(task, data, Tokenizer.load(judged.tokenizer_files), max_length or task.max_length, judged)


def predict(
    model: str, texts: Sequence[str], machine: Machine, max_length: int | None = None, squad: Squad | None = None
) -> list[dict[str, Any]]:
    """For each text (`first ||| second` for a pair) the label, and the probability of each; the
    number for regression. Of models that look at each token: answer_tokens.py. squad: how documents
    are read and answers chosen."""
    squad = squad or squad_task()
    loaded = Bert.load(model).to(machine.xp)
    if loaded.config.head in ("tokens", "spans"):
        length = max_length or (squad if loaded.config.head == "spans" else Task).max_length
        check_length(length, loaded.config)
        if loaded.config.head == "spans":
            return answer_texts(loaded, texts, machine.workers, length, squad)
        return label_texts(loaded, texts, machine.workers, length)
    max_length = max_length or Task.max_length
    if loaded.config.head != "classifier":
        raise InputError(f"{model}: has no classifier; fine-tune or distil it on a task first")
    halves = [text.split("|||", 1) for text in texts]
    if len({len(half) for half in halves}) > 1:
        raise InputError("some texts are pairs (first ||| second) and some are not; give one kind at a time")
    pairs = [half[1].strip() for half in halves] if len(halves[0]) == 2 else None
    examples = Examples([half[0].strip() for half in halves], pairs, None, list(range(1, len(texts) + 1)), Path("<arguments>"))
    check_length(max_length, loaded.config)
    encoded = encode(examples, Tokenizer.load(loaded.tokenizer_files), max_length, loaded.config.type_vocab_size)
    values = evaluation.logits(loaded, encoded, machine.workers)
    return [_answer(text, row, loaded.config) for text, row in zip(texts, values, strict=True)]


def predict_test(model: str, task: Task, data: Path, out: Path, machine: Machine, max_length: int | None = None) -> list[str]:
    """Answer a task's test files in GLUE's leaderboard format, RTE.tsv or MNLI-m.tsv and
    MNLI-mm.tsv in `out`; returns their paths."""
    judged, files = _judged(model, task, data, machine, max_length)
    for split in task.test_splits:
        files.split(split)  # all are read before anything is written
    Path(out).mkdir(parents=True, exist_ok=True)
    written = []
    if task.head == "spans":
        return [path for split in task.test_splits for path in write_found(judged, files, split, out, machine.workers)]
    if task.head == "tokens":
        return [write_words(judged, files, split, out, machine.workers) for split in task.test_splits]
    for split in task.test_splits:
        suffix = {"test_matched": "-m", "test_mismatched": "-mm"}.get(split, "")
        path = Path(out) / f"{task.leaderboard}{suffix}.tsv"
        values = evaluation.logits(judged, files.split(split), machine.workers)
        write_predictions(path, task, evaluation.predictions(values, task.labels is None))
        written.append(str(path))
    return written


def _answer(text: str, logits: np.ndarray, config: Config) -> dict[str, Any]:
    if config.problem_type == "regression" or config.num_labels == 1:
        return {"text": text, "score": float(logits[0])}
    p = np.exp(logits - logits.max(), dtype=np.float64)
    p /= p.sum()
    probabilities = {config.id2label[i]: round(float(p[i]), 6) for i in range(len(p))}
    return {"text": text, "label": config.id2label[int(p.argmax())], "probabilities": probabilities}
