"""A vocabulary of one's own: as many pieces as asked, read by the project's tokenizer, and every known word found again."""

import subprocess
import sys

import pytest

from minitinybert.data.tokenizer import Tokenizer
from minitinybert.data.vocabulary import train_vocabulary
from minitinybert.errors import InputError

TEXT = "The quick brown fox jumps over the lazy dog.\n\nPack my box with five dozen liquor jugs, said the Fox.\n" * 5


def test_a_trained_vocabulary_reads_its_text(tmp_path):
    (tmp_path / "text").write_text(TEXT)
    directory = train_vocabulary([tmp_path / "text"], 90, tmp_path / "tokenizer")
    tokenizer = Tokenizer.load(directory)
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (0, 1, 2, 3, 4)
    assert 40 < tokenizer.vocab_size <= 90
    (a,) = tokenizer.encode(["the FOX said so"])
    (b,) = tokenizer.encode(["The fox"], ["box"])
    assert a.input_ids[0] == 2 and a.input_ids[-1] == 3 and tokenizer.unk_id not in a.input_ids
    assert b.token_type_ids[-1] == 1 and tokenizer.id_to_token(int(b.input_ids[1])) == "the"
    before = (directory / "tokenizer.json").read_bytes()
    train_vocabulary([tmp_path / "nowhere"], 50, directory)
    assert (directory / "tokenizer.json").read_bytes() == before


def test_case_can_be_kept(tmp_path):
    (tmp_path / "text").write_text(TEXT)
    tokenizer = Tokenizer.load(train_vocabulary([tmp_path / "text"], 90, tmp_path / "tokenizer", lower_case=False))
    assert tokenizer.token_to_id("F") is not None and tokenizer.encode(["Fox"])[0].input_ids[1] != tokenizer.encode(["fox"])[0].input_ids[1]


def test_a_corpus_without_a_line_end_is_read_in_bounded_pieces(tmp_path, monkeypatch):
    """A vocabulary is learned of the pieces that a corpus is read in, so that their bound is its own."""
    from minitinybert.data import text, vocabulary

    (tmp_path / "text").write_text("quick brown fox " * 5000)
    monkeypatch.setattr(text, "BLOCK", 1000)
    seen, read = [], vocabulary.read_corpus
    monkeypatch.setattr(vocabulary, "read_corpus", lambda path: (seen.append(line) or line for line in read(path)))
    tokenizer = Tokenizer.load(train_vocabulary([tmp_path / "text"], 90, tmp_path / "tokenizer"))
    assert tokenizer.token_to_id("quick") is not None and max(map(len, seen)) < 3000
    assert "".join(seen[: len(seen) // 2]).replace(" ", "") == "quickbrownfox" * 5000


def test_what_gives_no_vocabulary_is_said(tmp_path):
    (tmp_path / "text").write_bytes(b"a\n\xff\n")
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        train_vocabulary([tmp_path / "text"], 90, tmp_path / "tokenizer")
    with pytest.raises(InputError, match="special tokens"):
        train_vocabulary([tmp_path / "text"], 5, tmp_path / "tokenizer")
    assert not (tmp_path / "tokenizer").exists()


def test_the_vocabulary_is_a_function_of_the_text(tmp_path):
    """Each in its own process: the trainer's hash tables have another order in each."""
    (tmp_path / "text").write_text(TEXT)
    files = []
    for name in "ab":
        code = (
            f"from minitinybert.data.vocabulary import train_vocabulary as t; t([{str(tmp_path / 'text')!r}], 90, {str(tmp_path / name)!r})"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
        files.append((tmp_path / name / "tokenizer.json").read_bytes())
    assert files[0] == files[1]
