"""What a model starts from where no checkpoint of it is there: a shape, for random weights, or layers
of its teacher.

    4L-312D-12H-1200F     random weights of these sizes
    teacher:3,6,9,12      the teacher's embeddings and these of its layers, so as wide as it: the start of DistilBERT and of PKD
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.tokenizer import Tokenizer
from ..engine.device import to_host
from ..errors import InputError
from ..model.bert import Bert
from ..model.config import Config
from .shape import is_shape, parse_shape

_LAYERS = "teacher:"


def is_checkpoint(student: str) -> bool:
    """Whether it names a directory or an id, and neither a shape nor layers of the teacher."""
    return not (is_shape(student) or is_of_teacher(student))


def is_of_teacher(student: str) -> bool:
    """Whether it names layers of the teacher."""
    return student.startswith(_LAYERS)


def new_student(student: str, teacher: Bert, seed: int, **changes: Any) -> Bert:
    """A student of a shape, or of the teacher's layers, with the teacher's vocabulary, tokenizer and
    what else `changes` leaves of its config. InputError where it is neither, or the teacher has no
    such layers."""
    if not is_of_teacher(student):
        config = replace(teacher.config, **parse_shape(student), **changes)
        return Bert(config, Bert.new(config, seed).parameters, teacher.tokenizer_files)
    layers = _layers(student, teacher.config.num_hidden_layers)
    made = Bert.new(replace(teacher.config, num_hidden_layers=len(layers), **changes), seed)
    for name in made.parameters:
        own = name
        if "encoder.layer." in name:
            before, _, rest = name.partition("encoder.layer.")
            number, _, tensor = rest.partition(".")
            own = f"{before}encoder.layer.{layers[int(number)] - 1}.{tensor}"
        if own in teacher.parameters:
            made.parameters[name][...] = to_host(teacher.parameters[own])
    return Bert(made.config, made.parameters, teacher.tokenizer_files)


def random_model(shape: str, tokenizer: Path | Mapping[str, Path] | None, seed: int, **changes: Any) -> Bert:
    """A model of a shape with random weights for the vocabulary of a tokenizer. InputError where
    there is none."""
    if tokenizer is None:
        made = "pretrain makes one: --train-vocabulary N"
        raise InputError(f"--model {shape}: random weights need a vocabulary; give --tokenizer DIR ({made})")
    words = Tokenizer.load(tokenizer)
    config = Config(vocab_size=words.vocab_size, pad_token_id=words.pad_id, **{**parse_shape(shape), **changes})
    return Bert(config, Bert.new(config, seed).parameters, words.files)


def _layers(student: str, N: int) -> list[int]:
    """The numbers of `teacher:3,6,9,12`, from 1 to the teacher's N layers."""
    numbers = student.removeprefix(_LAYERS).split(",")
    if not all(re.fullmatch(r"\s*[0-9]{1,4}\s*", n) and 1 <= int(n) <= N for n in numbers):
        raise InputError(f"--student {student}: needs numbers of the teacher's layers, 1 to {N}, such as teacher:1,{N}")
    return [int(n) for n in numbers]
