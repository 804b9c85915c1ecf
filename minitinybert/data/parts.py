"""One file of examples as three parts: train, dev and test.

Of ten rows, one is for dev and one for test, in each label's rows alike (of numbers: in each tenth of
them). Which row is in which part is a function of its text and label, of the others' and of the
split's own seed: not of where it stands in the file, nor of the seed of training, so that teacher and
student see the same parts. Rows of one text are in one part, or dev would have what was learned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError

PARTS = ("train", "dev", "test")
ALL = "all"  # the name of the whole file as one
_OF = 10  # rows, of which dev and test have one each
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Parts:
    """Whose parts: a file's name, the SHA-256 of its bytes, and the seed of the split."""

    name: str
    digest: str
    seed: int = 0


def parts_of(path: Path, seed: int = 0) -> Parts:
    """Of a file as it is now. InputError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    return Parts(path.name, digest.hexdigest(), seed)


def deal(texts: Sequence[tuple[str, ...]], labels: np.ndarray, seed: int, path: Path) -> np.ndarray:
    """Which of PARTS each row is in, (n,) int64. texts: one or two a row; labels: (n,) classes or
    numbers. Every label is in train. InputError where the rows are too few for a dev and a test
    part."""
    strata = labels if labels.dtype.kind == "i" else np.searchsorted(np.quantile(labels, np.arange(1, _OF) / _OF), labels)
    members: dict[int, list[tuple[str, ...]]] = {}
    for text, first in {text: i for i, text in reversed(list(enumerate(texts)))}.items():
        members.setdefault(int(strata[first]), []).append(text)
    part = dict.fromkeys(texts, 0)
    at = 0
    for stratum in sorted(members):
        _, *others = sorted(members[stratum], key=lambda text: _drawn(text, seed))  # the first of each label is in train
        for text in others:
            part[text] = {0: 1, _OF // 2: 2}.get(at % _OF, 0)
            at += 1
    if at <= _OF // 2:
        needed = len(members) + _OF // 2 + 1
        raise InputError(f"{path}: {len(part)} different rows are too few for train, dev and test; {needed} are needed")
    return np.array([part[text] for text in texts], np.int64)


def _drawn(text: tuple[str, ...], seed: int) -> bytes:
    """A place in a random order that no library's generator may change."""
    return hashlib.blake2b("\0".join((str(seed), *text)).encode("utf-8", "surrogatepass"), digest_size=16).digest()
