"""What a trained model says: its metrics on a task, the labels of texts, the answers to a task's
test files."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.batching import EncodedExamples
from ..data.glue import ENDS, Examples, Task, write_predictions
from ..data.squad import Squad, squad_task
from ..data.tokenizer import Tokenizer
from ..errors import InputError
from ..files import json_text, replacing
from ..machine import Machine
from ..model.bert import Bert
from ..model.config import TOKEN_MAPS
from ..progress import log
from ..training import evaluation
from .answer_tokens import answer_texts, label_texts, write_found, write_words
from .classifiers import answer_kind, check_answers, check_head, in_task_order
from .kinds import KINDS, Judgement
from .task_data import TaskData, check_length, judged_splits
from .texts import Text, answers, as_json, encode_texts


def judge(model: Bert, task: Task, examples: EncodedExamples, machine: Machine) -> dict[str, float]:
    """{metric: value} of a model on labelled examples."""
    return judge_against_constant(model, task, examples, machine).metrics


def judge_against_constant(model: Bert, task: Task, examples: EncodedExamples, machine: Machine) -> Judgement:
    """{metric: value} of a model on labelled examples; and in words why it is no better than a
    constant answer, "" where it is."""
    kind = KINDS[task.head]
    return kind.judge(kind.ask(model, examples, machine.workers), task, examples, model.config)


def main_score(results: Mapping[str, Mapping[str, float]], task: Task) -> float:
    """The main metric of {split: metrics}, a mean over the splits (MNLI has two dev files)."""
    return statistics.fmean(metrics[task.main_metric] for metrics in results.values())


def evaluate(
    model: str, task: Task, data: Path, machine: Machine, max_length: int | None = None, splits: Sequence[str] | None = None
) -> dict[str, dict[str, float]]:
    """{split: {metric: value}} of a model on a task's labelled files, by default its dev ones (MNLI
    has two), or "all" of a file of which no part is known. A model that is no better than a constant answer is warned of."""
    judged, files = judged_model(model, task, data, machine, max_length)
    results: dict[str, dict[str, float]] = {}
    for split in splits or judged_splits(task, data):
        examples = files.split(split)
        if not examples.labelled:
            raise InputError(f"{data}: split {split} has no labels; nothing to compare with")
        results[split], nothing = judge_against_constant(judged, task, examples, machine)
        if nothing:
            log(f"warning: {model} is no better than a constant answer on {split}: {nothing}")
    return results


def judged_model(model: str, task: Task, data: Path, machine: Machine, max_length: int | None) -> tuple[Bert, TaskData]:
    """A model with a head for the task, its labels in the task's order, and the task's files in its
    ids."""
    loaded = Bert.load(model)
    check_answers(loaded.config, task, model)
    judged = in_task_order(loaded, task).to(machine.xp)
    return judged, TaskData(task, data, Tokenizer.load(judged.tokenizer_files), max_length or task.max_length, judged)


def predict(
    model: str, texts: Sequence[str] | Examples, machine: Machine, max_length: int | None = None, squad: Squad | None = None
) -> list[dict[str, Any]]:
    """For each text (`first ||| second` for a pair; or rows of a table) the label, and the probability of each; of a
    multi-label model the labels that are more probable than not; the number for regression. Of
    models that look at each token: answer_tokens.py. squad: how documents are read and answers
    chosen."""
    squad = squad or squad_task()
    loaded = Bert.load(model).to(machine.xp)
    if loaded.config.head in TOKEN_MAPS:
        check_head(loaded.config, model, loaded.config.head)
        length = max_length or (squad if loaded.config.head == "spans" else Task).max_length
        check_length(length, loaded.config)
        texts = _said(texts)
        if loaded.config.head == "spans":
            return answer_texts(loaded, texts, machine.workers, length, squad)
        return label_texts(loaded, texts, machine.workers, length)
    kind, max_length = answer_kind(loaded.config, model), max_length or Task.max_length
    check_length(max_length, loaded.config)
    asked = _asked(texts)
    encoded = encode_texts(asked, Tokenizer.load(loaded.tokenizer_files), loaded, max_length)
    values = evaluation.logits(loaded, encoded, machine.workers)
    return [as_json(answer, text, kind) for answer, text in zip(answers(asked, values, loaded, kind), _said(texts), strict=True)]


def _asked(texts: Sequence[str] | Examples) -> list[Text]:
    """Texts or pairs, which bars divide on the command line."""
    if isinstance(texts, Examples):
        return list(texts.texts if texts.pairs is None else zip(texts.texts, texts.pairs, strict=True))
    halves = [text.partition("|||") for text in texts]
    return [(first, second) if bars else text for text, (first, bars, second) in zip(texts, halves, strict=True)]


def _said(texts: Sequence[str] | Examples) -> Sequence[str]:
    """Each as one text, as the command line has it."""
    if not isinstance(texts, Examples):
        return texts
    if texts.pairs is None:
        return texts.texts
    return [" ||| ".join(pair) for pair in zip(texts.texts, texts.pairs, strict=True)]


def predict_test(
    model: str, task: Task, data: Path, out: Path, machine: Machine, max_length: int | None = None, table: bool = False
) -> list[str]:
    """Answer a task's test files, or one file, in GLUE's leaderboard format, RTE.tsv or MNLI-m.tsv
    and MNLI-mm.tsv in `out`; as a `table`, `out` is a file of probabilities (write_probabilities).
    Returns the paths."""
    judged, files = judged_model(model, replace(task, unlabelled="ignore"), data, machine, max_length)
    if table and (task.head != "classifier" or len(task.test_splits) > 1):
        raise InputError(f"--out {out}: a table has one label a text, of one file; name a directory for task {task.name}")
    for split in task.test_splits:
        files.split(split)  # all are read before anything is written
    if table:
        (split,) = task.test_splits
        values, kind = evaluation.logits(judged, files.split(split), machine.workers), answer_kind(judged.config, model)
        write_probabilities(out, [as_json(answer, "", kind) for answer in answers([""] * len(values), values, judged, kind)])
        return [str(out)]
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


def write_probabilities(path: Path, answers: Sequence[Mapping[str, Any]]) -> None:
    """`predict`'s answers as a table, by the file's ending: a row each, in their order; the label and
    the probability of each label by its name, or the score. InputError for answers of another kind,
    and where a label is called as a column is."""
    if not answers or not answers[0].keys() & {"label", "labels", "score"}:
        raise InputError(f"--out {path}: a table has a label or a score for each text, and this model answers otherwise; leave --out out")
    said = next(name for name in ("label", "labels", "score") if name in answers[0])
    names = list(answers[0].get("probabilities", ()))
    if said in names:
        raise InputError(f"--out {path}: a label is called {said!r}, as the column of what is answered; use --json")
    shown = lambda answer: ", ".join(answer[said]) if said == "labels" else answer[said]
    rows = [{said: shown(answer), **answer.get("probabilities", {})} for answer in answers]
    cells = [[said, *names], *map(dict.values, rows)]
    with replacing(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        if path.suffix.lower() == ".jsonl":
            file.writelines(json_text(row, ensure_ascii=False) + "\n" for row in rows)
        elif path.suffix.lower() == ".tsv":  # raw, as it is read
            file.writelines("\t".join(str(cell).translate(ENDS) for cell in row) + "\n" for row in cells)
        else:
            csv.writer(file, lineterminator="\n").writerows(cells)
