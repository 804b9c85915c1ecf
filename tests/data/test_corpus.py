"""Shards hold every token of the text in order, whoever made them and however often that was interrupted."""

import hashlib
import tracemalloc

import numpy as np
import pytest

from minitinybert.data import corpus as corpus_module
from minitinybert.data.corpus import Corpus, build_shards
from minitinybert.errors import InputError

from .corpora import WORDS, draw, words, write


def files_of(directory):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.iterdir() if p.suffix == ".npy"}


@pytest.mark.parametrize("shard_bytes", [1, 50, 333, 1 << 20])
def test_every_token_is_there_in_order_wherever_the_shards_are_cut(tmp_path, shard_bytes):
    documents = draw(1, 5 if shard_bytes == 1 else 30)
    half = len(documents) // 2
    files = [write(tmp_path / "a", documents[:half]), write(tmp_path / "b", documents[half:])]
    corpus = build_shards(files, words(), tmp_path / "shards", shard_bytes=shard_bytes)
    sentences = [s for document in documents for s in document]
    assert [corpus.sentence(i).tolist() for i in range(len(corpus))] == sentences
    assert corpus.tokens(0, corpus.num_tokens).tolist() == [i for s in sentences for i in s]
    assert np.diff(corpus.documents).tolist() == [len(document) for document in documents]
    for n in (0, 1, len(corpus)):
        assert corpus.counts(n, 100).tolist() == np.bincount([i for s in sentences[:n] for i in s], minlength=100).tolist()
    assert corpus.tokens(3, 3).shape == (0,) and corpus.sentence(0).dtype == np.int32
    assert len(list((tmp_path / "shards").glob("*.tokens.npy"))) == sum(-(-file.stat().st_size // shard_bytes) for file in files)


def test_blank_lines_carriage_returns_and_a_byte_order_mark_are_no_text(tmp_path):
    (tmp_path / "a").write_bytes("\ufeffw1 w2\r\n\r\n \t\n\nw3\n   w4\nw5".encode())
    for shard_bytes in (1, 4, 1000):
        corpus = build_shards([tmp_path / "a"], words(), tmp_path / str(shard_bytes), shard_bytes=shard_bytes)
        assert [corpus.sentence(i).tolist() for i in range(len(corpus))] == [[6, 7], [8], [9], [10]]
        assert corpus.documents.tolist() == [0, 1, 4]


def test_plain_text_is_split_into_sentences(tmp_path):
    text = 'w1 w2. W3 w4! "W5 w6?" W7 e.g. w8 "(W9 w10." 3 w11 is 2.5 w12.\n\nÉté. w13'
    (tmp_path / "a").write_text(text, encoding="utf-8")
    seen = corpus_module._SENTENCE_END.split(text.splitlines()[0])
    assert seen == ["w1 w2.", "W3 w4!", '"W5 w6?"', 'W7 e.g. w8 "(W9 w10."', "3 w11 is 2.5 w12."]
    corpus = build_shards([tmp_path / "a"], words(), tmp_path / "shards", sentences=False)
    assert len(corpus) == 6 and corpus.documents.tolist() == [0, 5, 6]


def test_two_processes_make_what_one_does(tmp_path):
    file = write(tmp_path / "a", draw(2, 60))
    for workers in (1, 2):
        build_shards([file], words(), tmp_path / str(workers), workers=workers, shard_bytes=2000)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")
    assert (tmp_path / "1" / "manifest.json").read_text() == (tmp_path / "2" / "manifest.json").read_text()


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_build_that_was_stopped_goes_on(tmp_path, monkeypatch, kept):
    file = write(tmp_path / "a", draw(3, 60))
    build_shards([file], words(), tmp_path / "whole", shard_bytes=1500)
    made = []
    real = corpus_module._make_shard

    def stop_after(job):
        if len(made) == kept:
            (tmp_path / "parts" / f"shard-{job.number:05d}.tokens.npy").write_bytes(b"half of it")
            raise KeyboardInterrupt
        made.append(job.number)
        real(job)

    monkeypatch.setattr(corpus_module, "_make_shard", stop_after)
    with pytest.raises(KeyboardInterrupt):
        build_shards([file], words(), tmp_path / "parts", shard_bytes=1500)
    with pytest.raises(InputError, match="not finished"):
        Corpus(tmp_path / "parts")
    again = []
    monkeypatch.setattr(corpus_module, "_make_shard", lambda job: (again.append(job.number), real(job)))
    build_shards([file], words(), tmp_path / "parts", shard_bytes=1500)
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")
    assert again == [n for n in range(len(again) + kept) if n not in made]
    monkeypatch.setattr(corpus_module, "_make_shard", None)
    assert len(build_shards([file], words(), tmp_path / "parts", shard_bytes=1500)) == len(Corpus(tmp_path / "whole"))


def test_an_unfinished_build_of_other_text_starts_anew(tmp_path, monkeypatch):
    file = tmp_path / "a"
    file.write_bytes(b"w1\n" * 100 + b"\xff\n")
    with pytest.raises(InputError, match=r"a, line 101: not UTF-8 \(byte 1\)"):
        build_shards([file], words(), tmp_path / "shards", shard_bytes=90)
    assert list((tmp_path / "shards").glob("*.documents.npy"))
    file.write_text("w2\n" * 40)
    corpus = build_shards([file], words(), tmp_path / "shards", shard_bytes=90)
    assert corpus.tokens(0, corpus.num_tokens).tolist() == [7] * 40


def test_shards_without_a_plan_are_gone_on_with_by_nobody(tmp_path, monkeypatch):
    """A process that is killed while it removes another plan's shards leaves some; the plan goes first."""
    file = write(tmp_path / "a", draw(4, 9))
    build_shards([file], words(), tmp_path / "whole", shard_bytes=90)
    directory = tmp_path / "shards"
    build_shards([file], words(), directory, sentences=False, shard_bytes=90)
    (directory / "manifest.json").unlink()
    removed = []
    unlink = corpus_module.Path.unlink

    def die(path, **more):
        removed.append(path.name)
        if len(removed) == 4:
            raise KeyboardInterrupt
        unlink(path, **more)

    monkeypatch.setattr(corpus_module.Path, "unlink", die)
    with pytest.raises(KeyboardInterrupt):
        build_shards([file], words(), directory, shard_bytes=90)
    monkeypatch.undo()
    assert removed[0] == "plan.json" and list(directory.glob("*.documents.npy"))
    build_shards([file], words(), directory, shard_bytes=90)
    assert files_of(directory) == files_of(tmp_path / "whole")


def test_a_full_disk_is_one_line(tmp_path):
    """The index too, which a mapped file would end with SIGBUS."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = write(tmp_path / "a", draw(4, 400))
    whole = build_shards([file], words(), tmp_path / "whole", shard_bytes=2000)
    index = (tmp_path / "whole" / "sentences.npy").stat().st_size
    assert index > max(path.stat().st_size for path in (tmp_path / "whole").glob("shard-*"))
    assert whole.starts.tolist() == [0, *np.cumsum([len(whole.sentence(i)) for i in range(len(whole))])]
    resource.setrlimit(resource.RLIMIT_FSIZE, (index - 1, before[1]))
    try:
        with pytest.raises(InputError, match=r"sentences\.npy: cannot be written \(File too large\)"):
            build_shards([file], words(), tmp_path / "shards", shard_bytes=2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "shards" / "sentences.npy").exists()
    build_shards([file], words(), tmp_path / "shards", shard_bytes=2000)
    assert files_of(tmp_path / "shards") == files_of(tmp_path / "whole")


def test_a_finished_corpus_of_another_plan_is_refused(tmp_path):
    file = write(tmp_path / "a", draw(4, 3))
    build_shards([file], words(), tmp_path / "shards")
    with pytest.raises(InputError, match="another tokenizer"):
        build_shards([file], words(90), tmp_path / "shards")
    with pytest.raises(InputError, match="another sentences"):
        build_shards([file], words(), tmp_path / "shards", sentences=False)
    write(file, draw(5, 4))
    with pytest.raises(InputError, match="other files"):
        build_shards([file], words(), tmp_path / "shards")


def test_padding_and_truncation_are_no_other_tokenizer(tmp_path):
    file = write(tmp_path / "a", [[[5, 6, 7, 8, 9]]])
    cutting = words()
    cutting.enable_truncation(3)
    cutting.enable_padding(length=9)
    corpus = build_shards([file], cutting, tmp_path / "shards")
    assert corpus.sentence(0).tolist() == [5, 6, 7, 8, 9]
    build_shards([file], words(), tmp_path / "shards")


@pytest.mark.parametrize("text, message", [(b"", "no text"), (b"\n \n\n", "no text"), (b"w1\nw2\xe4 w3\n", "line 2: not UTF-8")])
def test_what_is_no_text_is_said_in_one_line(tmp_path, text, message):
    (tmp_path / "a").write_bytes(text)
    with pytest.raises(InputError, match=message) as error:
        build_shards([tmp_path / "a"], words(), tmp_path / "shards")
    assert "\n" not in str(error.value) and not (tmp_path / "shards" / "manifest.json").exists()


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="nowhere: not a file"):
        build_shards([tmp_path / "nowhere"], words(), tmp_path / "shards")


@pytest.mark.parametrize("shard_bytes", [1 << 30, 1 << 17, 90_001])
def test_an_endless_line_is_cut_at_white_space(tmp_path, shard_bytes):
    """text8 is one line of 100 MB; wherever the shards are cut, no word is lost and none broken."""
    long = [5 + i % 90 for i in range(200_000)]
    (tmp_path / "a").write_text("w1\n" + " ".join(WORDS[i] for i in long) + "\nw2\n\nw3")
    corpus = build_shards([tmp_path / "a"], words(), tmp_path / "shards", shard_bytes=shard_bytes)
    assert corpus.tokens(0, corpus.num_tokens).tolist() == [6, *long, 7, 8]
    lengths = np.diff(corpus.starts)
    assert len(corpus) > 5 and lengths.max() < 3 * (1 << 17) / len("w1 ")
    assert corpus.documents.tolist() == [0, len(corpus) - 1, len(corpus)]
    if shard_bytes != 1 << 30:
        whole = build_shards([tmp_path / "a"], words(), tmp_path / "whole", shard_bytes=1 << 30)
        assert whole.starts.tolist() == corpus.starts.tolist()


def test_errors_come_through_from_other_processes(tmp_path):
    (tmp_path / "a").write_bytes(b"w1\n" * 100 + b"\xff\n")
    with pytest.raises(InputError, match="line 101"):
        build_shards([tmp_path / "a"], words(), tmp_path / "shards", workers=2, shard_bytes=100)


def test_a_large_corpus_needs_little_memory(tmp_path):
    """Text of 4 MB in shards of 64 kB: the peak is of a shard's order, not of the text's. (It grows with shard_bytes, seven-fold.)"""
    rng = np.random.default_rng(0)
    with open(tmp_path / "a", "w") as file:
        for _ in range(20):
            lines = rng.integers(5, 100, (700, 75))
            file.write("\n".join(" ".join(WORDS[i] for i in line) for line in lines) + "\n\n")
    assert (tmp_path / "a").stat().st_size > 4e6
    tracemalloc.start()
    corpus = build_shards([tmp_path / "a"], words(), tmp_path / "shards", shard_bytes=1 << 16)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert corpus.num_tokens == 20 * 700 * 75
    assert peak < 1e6, f"{peak} bytes at the peak"
