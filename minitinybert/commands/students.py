"""What a model starts from where no checkpoint of it is there: a shape, for random weights, or layers
of its teacher.

    4L-312D-12H-1200F     random weights of these sizes; a student's embeddings are those nearest to its teacher's
    teacher:3,6,9,12      the teacher's embeddings and these of its layers, so as wide as it: the start of DistilBERT and of PKD
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.batching import TrainingExamples
from ..data.tokenizer import Tokenizer
from ..distillation.distill import projection_names
from ..distillation.nearest import nearest_embeddings
from ..distillation.recipes import Recipe
from ..engine.batch import Batch
from ..engine.device import to_host
from ..engine.random import generator
from ..errors import InputError
from ..model.bert import Bert
from ..model.config import Config
from ..progress import log
from ..weights import read
from .shape import is_shape, parse_shape

_LAYERS = "teacher:"
_SAMPLE = 32_768  # tokens that the nearest embeddings are found from


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


def maps_at_start(student: str, made: Bert, teacher: Bert, recipe: Recipe, examples: TrainingExamples, seed: int) -> dict[str, np.ndarray]:
    """Where W_e and W_h start, by name, where that is known: a checkpoint's own, as the recipe says;
    or those of the embeddings nearest to the teacher's, which are written into the student, made of
    a shape.

    student: as the user named it. teacher: on the host; examples: what is distilled on.
    """
    if is_checkpoint(student):
        return known_projections(student, recipe, made.config.num_hidden_layers)
    if is_of_teacher(student) or recipe.student_embeddings == "random":
        return {}
    if made.config.hidden_size > teacher.config.hidden_size:
        log(f"--student {student}: wider than its teacher; its embeddings start from random ones")
        return {}
    W = nearest_embeddings(made, teacher, _sample(examples, seed), seed)
    return {f"{name}.weight": W for name in projection_names(recipe.projection, made.config.num_hidden_layers)}


def _sample(examples: TrainingExamples, seed: int) -> Batch:
    """Some, of about _SAMPLE tokens in all."""
    lengths = examples.lengths(0)
    order = generator(seed, *b"sample").permutation(len(examples))
    return examples.batch(np.sort(order[: 1 + int(np.searchsorted(np.cumsum(lengths[order]), _SAMPLE))]))


def known_projections(student: str, recipe: Recipe, M: int) -> dict[str, np.ndarray]:
    """W_e and W_h of a student of M layers that was distilled before, where the recipe carries them
    over."""
    return maps_from(read(student).tensors, recipe.projection, M) if recipe.carry_projections else {}


def maps_from(tensors: Mapping[str, np.ndarray], kind: str, M: int) -> dict[str, np.ndarray]:
    """The projections that `kind` names, from a checkpoint's tensors: by the same names, or where a
    student was distilled with maps of another kind (TinyBERT's own have one for all), each the mean
    of the maps that its states had. {} where there are none."""
    wanted = projection_names(kind, M)
    for other in (kind, "split", "shared", "layer"):
        own = projection_names(other, M)
        if own and all(f"{name}.weight" in tensors for name in own):
            break
    else:
        return {}
    found = {}
    for name in dict.fromkeys(wanted):
        sources = dict.fromkeys(own[m] for m, other in enumerate(wanted) if other == name)
        for ending in (".weight", ".bias"):
            values = [tensors[source + ending] for source in sources if source + ending in tensors]
            if values:
                found[name + ending] = values[0] if len(values) == 1 else np.mean(values, axis=0, dtype=values[0].dtype)
    return found


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
