"""A task's files as a model reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..data.batching import EncodedExamples
from ..data.glue import Examples, Task, read_split
from ..data.parts import ALL
from ..data.squad import read_windows
from ..data.tagging import read_words
from ..data.tokenizer import Tokenizer
from ..errors import InputError
from ..model.bert import Bert
from ..model.config import Config


class TaskData:
    """A task's files, tokenised for one model: `split("train")`. Reads and encodes a file once.

    InputError where the tokenizer does not fit the model, or max_length its positions, or the
    vocabulary knows no word of a file; a warning where it knows few.
    """

    def __init__(self, task: Task, directory: Path, tokenizer: Tokenizer, max_length: int, model: Bert):
        self.task, self.directory, self.tokenizer = task, Path(directory), tokenizer
        check_length(max_length, model.config)
        tokenizer.check_fits(model.config.vocab_size)
        self.max_length, self.segments = max_length, model.config.type_vocab_size
        self._splits: dict[str, EncodedExamples] = {}

    def split(self, name: str) -> EncodedExamples:
        if name not in self._splits:
            read = _READERS[self.task.head]
            self._splits[name] = read(self.task, self.directory, name, self.tokenizer, self.max_length, self.segments)
        return self._splits[name]

    def check(self) -> None:
        """InputError for what is wrong with the files that training reads, before hours are spent."""
        for name in ("train", *self.task.dev_splits):
            self.split(name)


def judged_splits(task: Task, data: Path) -> tuple[str, ...]:
    """Those that a model is judged on where nobody says: the dev files or part, or all of a file of
    which no part is known."""
    return (ALL,) if task.head == "classifier" and task.parts is None and Path(data).is_file() else task.dev_splits


def check_length(max_length: int, config: Config) -> None:
    """InputError where a model has not as many positions."""
    if not 3 <= max_length <= config.max_position_embeddings:
        raise InputError(f"--max-length {max_length}: a number from 3 to the model's {config.max_position_embeddings} positions")


def _read_texts(task: Task, directory: Path, split: str, tokenizer: Tokenizer, max_length: int, segments: int) -> EncodedExamples:
    examples = read_split(task, directory, split)
    encoded = encode(examples, tokenizer, max_length, segments)
    tokenizer.check_known(encoded.input_ids, examples.path)
    return encoded


# By the head that answers.
_READERS: dict[str, Callable[..., EncodedExamples]] = {"classifier": _read_texts, "tokens": read_words, "spans": read_windows}


def encode(examples: Examples, tokenizer: Tokenizer, max_length: int, segments: int) -> EncodedExamples:
    """Texts as ids the model has rows for. A model of one segment (type_vocab_size 1) sees pairs as
    one."""
    encoded = tokenizer.encode(examples.texts, examples.pairs, max_length)
    types = [e.token_type_ids for e in encoded]
    if segments < 2:
        types = [np.zeros_like(t) for t in types]
    return EncodedExamples([e.input_ids for e in encoded], types, examples.labels)
