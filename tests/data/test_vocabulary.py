"""A vocabulary of one's own: as many pieces as asked, read by the project's tokenizer, and every known word found again."""

import subprocess
import sys

import pytest

from minitinybert.data.tokenizer import Tokenizer
from minitinybert.data.vocabulary import needs_marks, train_vocabulary
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


def test_a_vocabulary_that_is_there_is_kept_only_for_the_same_text_size_and_choices(tmp_path, capsys):
    text, other, directory = tmp_path / "text", tmp_path / "other", tmp_path / "tokenizer"
    text.write_text(TEXT)
    other.write_text(TEXT)
    train_vocabulary([text], 90, directory)
    before = (directory / "tokenizer.json").read_bytes()
    train_vocabulary([text], 90, directory)
    for files, size, choices, words in (
        ([text], 80, {}, "with size 90, and 80 is asked for"),
        ([text, other], 90, {}, "with corpus text, and text, other is asked for"),
        ([text], 90, {"lower_case": False}, "lower_case True, and False is asked for"),
        ([text], 90, {"keep_accents": True}, "strip_accents True, and False is asked for"),
    ):
        with pytest.raises(InputError, match=words):
            train_vocabulary(files, size, directory, **choices)
    text.write_text(TEXT + "More.\n")
    with pytest.raises(InputError, match="with corpus text, which have changed since"):
        train_vocabulary([text], 90, directory)
    assert capsys.readouterr().err == ""
    (directory / "vocabulary.json").unlink()  # made before it was written
    train_vocabulary([text], 50, directory)
    assert "the vocabulary there is kept; what it was made of is not noted" in capsys.readouterr().err
    assert (directory / "tokenizer.json").read_bytes() == before


@pytest.mark.parametrize("choices, same", [({}, True), ({"keep_accents": True}, False), ({"lower_case": False}, False)])
def test_accents_are_kept_when_asked_for(tmp_path, choices, same):
    """And transformers reads the directory in the same way."""
    transformers = pytest.importorskip("transformers", reason="the judge of the tokenizer is transformers")
    (tmp_path / "text").write_text("möchte mochte में मे が か tiếng tieng Musste\n" * 5, encoding="utf-8")
    directory = train_vocabulary([tmp_path / "text"], 200, tmp_path / "tokenizer", **choices)
    tokenizer, theirs = Tokenizer.load(directory), transformers.BertTokenizer.from_pretrained(directory)
    ids = lambda text: tokenizer.encode([text])[0].input_ids.tolist()
    for a, b in (("möchte", "mochte"), ("में", "मे"), ("が", "か"), ("tiếng", "tieng")):
        assert (ids(a) == ids(b)) is same
        assert ids(a) == theirs(a)["input_ids"] and tokenizer.unk_id not in ids(a)
    assert (ids("Musste") == ids("musste")) is choices.get("lower_case", True)
    assert ids("Musste MÖCHTE") == theirs("Musste MÖCHTE")["input_ids"]


ENGLISH = "The film was made in nineteen sixty and it is still worth seeing, more so than what came after it. " * 20


@pytest.mark.parametrize(
    "language, text, needed",
    [
        ("English", "A naïve café, a fiancée’s résumé and Dvořák’s cello — “good”.", False),
        ("French", "Le café était fermé à Noël, où l’on s’aperçoit du goût de la crème brûlée.", False),
        ("German", "Die Männer möchten schöne, süße Äpfel.", False),
        ("Spanish", "El niño comió piñas mañana también.", False),
        ("Czech", "Příliš žluťoučký kůň úpěl ďábelské ódy.", False),
        ("Turkish", "Şu çocuğun düğünü İstanbul’da.", False),
        ("Greek", "Το αυτοκίνητό μου είναι ελληνικό, ἀρχή.", False),
        ("Vietnamese", "Tôi muốn học tiếng Việt rất đẹp.", True),
        ("Yoruba", "Ọjọ́ dára fún ẹ̀kọ́.", True),
        ("Hindi", "में कुछ नहीं है", True),
        ("Bengali", "কুকুর দুটো ছুটছে", True),
        ("Tamil", "தமிழ் நல்ல மொழி", True),
        ("Thai", "ที่นี่สวยมาก", True),
        ("Japanese", "がっこうでべんきょうする", True),
        ("Russian", "Новый ёж мой", True),
        ("Arabic", "أنا أحب القراءة", True),
        ("Arabic with points", "كَتَبَ", False),
        ("Hebrew with points", "שָׁלוֹם עוֹלָם", False),
        ("Chinese", "今天天气很好", False),
        ("Korean", "한국어를 배워요", False),
        ("signs", "❤️ ≠ 5̸ 😀", False),
    ],
)
def test_which_marks_a_language_needs(tmp_path, capsys, language, text, needed):
    assert any(map(needs_marks, text.split())) is needed
    (tmp_path / "text").write_text((text + "\n") * 5, encoding="utf-8")
    train_vocabulary([tmp_path / "text"], 300, tmp_path / "stripped")
    said = capsys.readouterr().err
    assert ("lose marks that their language needs" in said and "--keep-accents" in said) is needed
    for name, choices in (("kept", {"keep_accents": True}), ("cased", {"lower_case": False})):
        train_vocabulary([tmp_path / "text"], 300, tmp_path / name, **choices)
    assert capsys.readouterr().err == ""


def test_foreign_names_in_english_text_are_no_matter(tmp_path, capsys):
    (tmp_path / "text").write_text(ENGLISH + "Việt\n", encoding="utf-8")
    train_vocabulary([tmp_path / "text"], 300, tmp_path / "a")
    assert capsys.readouterr().err == ""
    (tmp_path / "text").write_text(ENGLISH + "tiếng Việt rất đẹp " * 5, encoding="utf-8")
    train_vocabulary([tmp_path / "text"], 300, tmp_path / "b")
    assert "warning: 2% of the corpus's words lose marks" in capsys.readouterr().err


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
