"""The commands as functions: `minitinybert.finetune(model=…, task="sst-2", …)` does what
`minitinybert finetune --model … --task sst-2 …` does, with the same options, checks and files.

    teacher = minitinybert.finetune(model="bert-base-uncased", task="sst-2", data="glue/SST-2", out="teacher")
    student = minitinybert.distill_task(teacher=teacher.model, student="4L-312D-12H-1200F", task="sst-2", data="glue/SST-2", out="student")
    student.results["dev"]["accuracy"], minitinybert.Classifier(student.model)(["a gripping film"])

Keywords are a command's options with underscores for dashes. What is left out, or None, is as the
command line has it; commands/arguments.py alone says and checks what an option may be. Paths are
strings or Path objects, and what the command line divides by commas may be a list. Bad input raises
InputError, in one line; SIGINT (a notebook's stop button) during training leaves a checkpoint and
raises KeyboardInterrupt, and the same call with resume=True goes on.
"""

from __future__ import annotations

import inspect
import os
import signal
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from .commands import cli, keywords
from .commands.results import Augmented, Predictions, Report, Result, Scores
from .engine import ranks
from .errors import as_function, in_words
from .training.loop import Stopped

Place = str | os.PathLike[str]
Names = str | Sequence[str]
R = TypeVar("R", bound=Result)
F = TypeVar("F", bound=Callable[..., Any])


def _command(words: str) -> Callable[[F], F]:
    """The function of a command: what --help says of its options goes below its docstring."""

    def described(function: F) -> F:
        told = keywords.described(words.split(), list(inspect.signature(function).parameters))
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n{told}\n"
        return function

    return described


def _do(words: str, given: Mapping[str, Any], kind: type[R]) -> R:
    """The command's result, which is of `kind`."""

    def work(ours: ranks.Ranks) -> Result:
        try:
            return cli.perform(args, ours)
        except Stopped as stopped:
            if stopped.signal != signal.SIGINT:
                signal.raise_signal(stopped.signal)  # training had put it off
            raise KeyboardInterrupt(in_words(str(stopped)).replace("command", "call")) from None

    with as_function(keywords.options()), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what overflows shows in the loss, which is looked at
        args = keywords.parse(words.split(), given)
        result = ranks.run(args.command, work)
    assert isinstance(result, kind)
    return result


# ------------------------------------------------------------------------------------------------------------------- training


@_command("finetune")
def finetune(
    *,
    model: Place,
    task: str | None = None,
    data: Place,
    out: Place,
    tokenizer: Place | None = None,
    split_seed: int | None = None,
    text_columns: Names | None = None,
    label_column: str | None = None,
    labels: Names | None = None,
    regression: bool = False,
    drop_unlabelled: bool = False,
    doc_stride: int | None = None,
    max_query_length: int | None = None,
    max_answer_length: int | None = None,
    null_threshold: float | None = None,
    max_length: int | None = None,
    recipe: Place = "default",
    set: Mapping[str, Any] | None = None,
    epochs: float = 3.0,
    lr: float = 5e-5,
    optimizer: str | None = None,
    batch_size: int = 32,
    warmup: float = 0.1,
    log_every: int = 50,
    save_every: int = 500,
    resume: bool = False,
    keep_state: bool = False,
    device: str = "cpu",
    tf32: bool = False,
    threads: int | None = None,
    seed: int = 0,
) -> Scores:
    """Fine-tune a BERT on a task's labels, as a teacher. The directory `out` holds the model that is
    best on dev, which is judged on each of the task's dev files."""
    return _do("finetune", locals(), Scores)


@_command("pretrain")
def pretrain(
    *,
    model: Place,
    corpus: Place | Sequence[Place],
    out: Place,
    tokenizer: Place | None = None,
    train_vocabulary: int | None = None,
    cased: bool = False,
    keep_accents: bool = False,
    plain_text: bool = False,
    pairs: bool = False,
    static: bool = False,
    shards: Place | None = None,
    processes: int = 1,
    max_length: int = 128,
    mask_rate: float = 0.15,
    epochs: float = 1.0,
    lr: float = 1e-4,
    optimizer: str = "adamw",
    batch_size: int = 32,
    warmup: float = 0.1,
    log_every: int = 50,
    save_every: int = 500,
    resume: bool = False,
    keep_state: bool = False,
    device: str = "cpu",
    tf32: bool = False,
    threads: int | None = None,
    seed: int = 0,
) -> Scores:
    """Train a masked language model on raw text: a teacher's start where there is no other.
    results["dev"] has, of sentences that were kept from training, the log-likelihood of a masked
    word and how often it is the model's first, or one of its first ten."""
    return _do("pretrain", locals(), Scores)


@_command("distill general")
def distill_general(
    *,
    teacher: Place,
    student: Place,
    corpus: Place | Sequence[Place],
    out: Place,
    teacher_dtype: str = "float32",
    plain_text: bool = False,
    pairs: bool = False,
    static: bool = False,
    shards: Place | None = None,
    processes: int = 1,
    max_length: int | None = None,
    recipe: Place = "default",
    set: Mapping[str, Any] | None = None,
    epochs: float | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    warmup: float | None = None,
    log_every: int = 50,
    save_every: int = 500,
    resume: bool = False,
    keep_state: bool = False,
    device: str = "cpu",
    tf32: bool = False,
    threads: int | None = None,
    seed: int = 0,
) -> Scores:
    """General distillation (paper, section 3.2): a student learns from a teacher that was only
    pre-trained, on raw text. results["train"] has the last mean losses."""
    return _do("distill general", locals(), Scores)


@_command("distill task")
def distill_task(
    *,
    teacher: Place,
    student: Place,
    task: str | None = None,
    data: Place,
    out: Place,
    teacher_dtype: str = "float32",
    split_seed: int | None = None,
    text_columns: Names | None = None,
    label_column: str | None = None,
    labels: Names | None = None,
    regression: bool = False,
    drop_unlabelled: bool = False,
    doc_stride: int | None = None,
    max_query_length: int | None = None,
    max_answer_length: int | None = None,
    null_threshold: float | None = None,
    max_length: int | None = None,
    stage: str = "both",
    prediction_data: Place | None = None,
    grid: bool = False,
    intermediate_epochs: float | None = None,
    intermediate_lr: float | None = None,
    epochs: float | None = None,
    lr: float | None = None,
    cache_gb: float | None = None,
    teacher_cache: Place | None = None,
    recipe: Place = "default",
    set: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    warmup: float | None = None,
    log_every: int = 50,
    save_every: int = 500,
    resume: bool = False,
    keep_state: bool = False,
    device: str = "cpu",
    tf32: bool = False,
    threads: int | None = None,
    seed: int = 0,
) -> Scores:
    """Task-specific distillation (paper, section 3.2): a student learns from a teacher that was
    fine-tuned on the task, first its layers (the model of out/intermediate), then its answers. After
    stage="intermediate" nothing is judged, and results is empty."""
    return _do("distill task", locals(), Scores)


@_command("augment")
def augment(
    *,
    mlm: Place,
    vectors: Place,
    task: str | None = None,
    data: Place,
    out: Place,
    split_seed: int | None = None,
    text_columns: Names | None = None,
    label_column: str | None = None,
    labels: Names | None = None,
    regression: bool = False,
    drop_unlabelled: bool = False,
    doc_stride: int | None = None,
    max_query_length: int | None = None,
    max_answer_length: int | None = None,
    null_threshold: float | None = None,
    recipe: str = "paper",
    copies: int | None = None,
    probability: float = 0.4,
    candidates: int = 15,
    no_original: bool = False,
    provenance: bool = False,
    processes: int | None = None,
    resume: bool = False,
    device: str = "cpu",
    tf32: bool = False,
    seed: int = 0,
) -> Augmented:
    """A task's training sentences with words replaced by what a masked language model, or word
    vectors, put in their places (paper, Algorithm 1). `out` then serves as `data`."""
    return _do("augment", locals(), Augmented)


# -------------------------------------------------------------------------------------------------------------------- asking


@_command("evaluate")
def evaluate(
    *,
    model: Place,
    task: str | None = None,
    data: Place,
    split_seed: int | None = None,
    text_columns: Names | None = None,
    label_column: str | None = None,
    labels: Names | None = None,
    regression: bool = False,
    drop_unlabelled: bool = False,
    doc_stride: int | None = None,
    max_query_length: int | None = None,
    max_answer_length: int | None = None,
    null_threshold: float | None = None,
    max_length: int | None = None,
    split: Names | None = None,
    device: str = "cpu",
    tf32: bool = False,
    threads: int | None = None,
    seed: int = 0,
) -> Scores:
    """A model's metrics on a task's labelled files, by default its dev ones."""
    return _do("evaluate", locals(), Scores)


@_command("predict")
def predict(
    *,
    model: Place,
    text: Names | None = None,
    file: Place | None = None,
    task: str | None = None,
    data: Place | None = None,
    out: Place | None = None,
    text_columns: Names | None = None,
    label_column: str | None = None,
    labels: Names | None = None,
    regression: bool = False,
    doc_stride: int | None = None,
    max_query_length: int | None = None,
    max_answer_length: int | None = None,
    null_threshold: float | None = None,
    max_length: int | None = None,
    device: str = "cpu",
    tf32: bool = False,
    threads: int | None = None,
    seed: int = 0,
) -> Predictions:
    """What a model of any kind says of texts ("first ||| second" for a pair, "question ||| document"
    for one that answers questions), or of a task's test files. It is loaded anew at each call:
    `minitinybert.Classifier` is loaded once."""
    return _do("predict", locals(), Predictions)


@_command("info")
def info(
    model: Place,
    *,
    teacher: Place | None = None,
    length: int = 128,
    measure: bool = False,
    batch_size: int = 32,
    device: str = "cpu",
    tf32: bool = False,
    threads: int | None = None,
    seed: int = 0,
) -> Report:
    """What a model, or a shape, holds and costs: a mapping with "parameters", "flops", "head",
    "labels", "files" and more, beside a teacher's with `teacher`."""
    return _do("info", locals(), Report)
