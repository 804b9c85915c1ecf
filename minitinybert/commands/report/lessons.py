"""What goes on inside a teacher and its students: attention and layers over the same sentences, and
the maps W_e and W_h."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...data.text import read_lines
from ...data.tokenizer import Encoded, Tokenizer
from ...distillation.distill import layer_map
from ...errors import InputError
from ...model.bert import Bert
from ...progress import log
from . import answers, inside
from .collector import Collector, Subject, there
from .runs import Step

_LINES = 400  # of a corpus, from which sentences are chosen


def lessons(collector: Collector, pairs: list[tuple[Subject, Bert]]) -> list[dict[str, Any]]:
    """Of each teacher the sentences that are looked at, and what went on inside it and its students."""
    by_teacher: dict[int, list[tuple[Subject, Bert]]] = {}
    for subject, teacher in pairs:
        by_teacher.setdefault(id(teacher), []).append((subject, teacher))
    found = [_lesson(collector, [subject for subject, _ in own], own[0][1]) for own in by_teacher.values()]
    return [lesson for lesson in found if lesson is not None]


@dataclass
class _Sentences:
    """Those that are shown, each with where it is from, and those over which layers are compared."""

    shown: list[Encoded]
    origins: list[str]
    compared: list[Encoded]


def _lesson(collector: Collector, subjects: list[Subject], teacher: Bert) -> dict[str, Any] | None:
    tokenizer = Tokenizer.load(teacher.tokenizer_files)
    chosen = _sentences(collector, subjects, teacher, tokenizer)
    if not chosen.shown:
        collector.note(f"{subjects[0].run.name}: no sentence to look at; give one by --text, or where the task's are, by --data")
        return None
    log(f"attention and layers of {subjects[0].teacher} and {len(subjects)} students, over {len(chosen.compared)} sentences")
    H_T = inside.hidden_states(teacher, chosen.compared)
    return {
        "teacher": str(subjects[0].teacher), "layers": teacher.config.num_hidden_layers, "heads": teacher.config.num_attention_heads,
        "sentences": [{"tokens": inside.names(tokenizer, s), "origin": o} for s, o in zip(chosen.shown, chosen.origins, strict=True)],
        "attention": [_bytes(inside.attention(teacher, sentence)) for sentence in chosen.shown],
        "compared": [len(chosen.compared), len(H_T[0])],
        "students": [_inside(collector, subject, teacher, chosen, H_T) for subject in subjects],
    }  # fmt: skip


def _inside(collector: Collector, subject: Subject, teacher: Bert, chosen: _Sentences, H_T: list[np.ndarray]) -> dict[str, Any]:
    student = collector.model(subject)
    M, N, recipe = student.config.num_hidden_layers, teacher.config.num_hidden_layers, subject.step.recipe
    first = subject.run.steps[0]  # the intermediate step, where there are two: it learns the maps
    maps = inside.read_maps(str(first.path), first.recipe, M)
    H_S = inside.hidden_states(student, chosen.compared)
    try:
        pairs = layer_map(recipe.layer_map, M, N)
    except InputError:
        pairs = ()
    return {
        "name": subject.name, "layers": M, "heads": student.config.num_attention_heads, "map": list(pairs),
        "attention": [_bytes(inside.attention(student, sentence)) for sentence in chosen.shown],
        "distances": [inside.five_digits(row) for row in inside.distances(H_S, H_T, maps).tolist()],
        "cka": [inside.five_digits(row) for row in inside.alignments(H_S, H_T).tolist()],
        "maps": sorted(maps.tensors),
    }  # fmt: skip


def _sentences(collector: Collector, subjects: list[Subject], teacher: Bert, tokenizer: Tokenizer) -> _Sentences:
    """What --text gives, and of the run's own: a task's dev examples, those on which the first student
    and the teacher part before others, or the lines of a corpus."""
    given = _given(collector.asked.texts, tokenizer)
    own: list[Encoded] = []
    apart: list[int] = []
    origin = "dev"
    for subject in subjects:
        if (dev := collector.dev(subject)) is not None:
            examples = answers.encoded(dev, teacher, min(subject.max_length, teacher.config.max_position_embeddings))
            own = [Encoded(ids, types) for ids, types in zip(examples.input_ids, examples.token_type_ids, strict=True)]
            apart = _apart(collector, subjects) if dev.task.head == "classifier" else []
            break
        if lines := _corpus_lines(subject):
            own, origin = tokenizer.encode(lines, None, min(subject.max_length, teacher.config.max_position_embeddings)), "corpus"
            break
    places = inside.choose(own, apart, collector.asked.sentences)
    origins = [*["--text"] * len(given), *("they part" if i in set(apart) else origin for i in places)]
    shown = [inside.cut(sentence, tokenizer.sep_id) for sentence in (*given, *(own[i] for i in places))]
    return _Sentences(shown, origins, inside.compared(own or given))


def _given(texts: Sequence[str], tokenizer: Tokenizer) -> list[Encoded]:
    """Each text by itself, or a pair: 'first ||| second'."""
    found = []
    for text in texts:
        first, bar, second = (part.strip() for part in text.partition("|||"))
        found += tokenizer.encode([first], [second] if bar else None, inside.MOST_PIECES)
    return found


def _apart(collector: Collector, subjects: list[Subject]) -> list[int]:
    """The dev examples on which the first student that answers and its teacher part."""
    names = [subject.run.name for subject in subjects if subject.answers]
    for (key, name), own in collector.said.items():
        if name in names:
            subject = next(s for s in subjects if s.run.name == name)
            teacher = collector.said.get((key, collector.name_of(str(subject.teacher))))
            return answers.parted(own, teacher) if teacher is not None and teacher is not own else []
    return []


def _corpus_lines(subject: Subject) -> list[str]:
    files = subject.step.about.get("corpus")
    for file in files if isinstance(files, list) else []:
        if (path := there(subject.run, file)) is not None and path.is_file():
            lines = (line.strip() for _, line in read_lines(path))
            return list(islice((line for line in lines if line), _LINES))
    return []


def maps(subjects: list[Subject]) -> list[dict[str, Any]]:
    """W_e and W_h of each step that learned some."""
    found = []
    places: dict[Path, tuple[Subject, Step]] = {}
    for subject in subjects:  # and of a step whose model is gone
        for step in (subject.step, subject.run.steps[0]):
            places.setdefault(step.path, (subject, step))
    for path, (subject, step) in places.items():
        of = subject.name if step is subject.step else f"{subject.run.name}, {step.name}"
        for name, tensor in sorted(inside.read_maps(str(path), step.recipe, 0).tensors.items()):
            if name.endswith(".weight") and tensor.ndim == 2:
                picture = inside.picture(name, tensor)
                found.append({
                    "of": of, "name": name.removesuffix(".weight"), "shape": list(picture.shape), "largest": picture.largest,
                    "values": inside.five_digits(picture.singular_values.tolist()), "size": list(picture.entries.shape),
                    "entries": base64.b64encode(picture.entries.tobytes()).decode("ascii"),
                })  # fmt: skip
    return found


def _bytes(p: np.ndarray) -> str:
    """Probabilities in 255ths, as base64."""
    return base64.b64encode(np.rint(255 * p).astype(np.uint8).tobytes()).decode("ascii")
