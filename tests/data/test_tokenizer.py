"""The tokenizer against transformers' own on drawn text; what is baked into a tokenizer.json; vocabularies that do not fit."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitinybert.data.tokenizer import Tokenizer
from minitinybert.errors import InputError

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789.,!?'\"-中文é", "##ing", "the"]
PIECES += ["film", "un"]
PIECES += [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary")
    (path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def theirs(directory):
    transformers = pytest.importorskip("transformers", reason="the judge of the tokenizer is transformers")
    return transformers.BertTokenizerFast(vocab={p: i for i, p in enumerate(PIECES)}, do_lower_case=True)


texts = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="abz the film ings.,'é中文\t\u200b\x00😀", max_size=40),
    st.just("x" * 150),
    st.just(""),
)


@settings(max_examples=150)
@given(texts, st.none() | texts.filter(bool), st.integers(5, 20))  # an empty pair is no pair to transformers
def test_ids_are_transformers_ids(directory, theirs, text, pair, max_length):
    ours = Tokenizer.load(directory).encode([text], None if pair is None else [pair], max_length)[0]
    expected = theirs(text, pair, max_length=max_length, truncation="longest_first", return_token_type_ids=True)
    assert ours.input_ids.tolist() == expected["input_ids"]
    assert ours.token_type_ids.tolist() == expected["token_type_ids"]


def test_cased_vocabularies_keep_their_case(directory, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*PIECES, "The"]) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    cased, uncased = Tokenizer.load(tmp_path), Tokenizer.load(directory)
    assert cased.id_to_token(cased.encode(["The"])[0].input_ids[1]) == "The"
    assert uncased.id_to_token(uncased.encode(["The"])[0].input_ids[1]) == "the"


def test_padding_and_truncation_of_the_file_are_switched_off(directory, tmp_path):
    tokenizer = Tokenizer.load(directory)
    tokenizer.tokenizer.enable_padding(length=50)
    tokenizer.tokenizer.enable_truncation(4)
    tokenizer.tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.load(tmp_path)
    assert len(loaded.encode(["a b c d e f g"])[0].input_ids) == 9
    assert (loaded.encode(["a b c"])[0].input_ids == Tokenizer.load(directory).encode(["a b c"])[0].input_ids).all()


def test_what_does_not_fit_is_said(directory, tmp_path):
    tokenizer = Tokenizer.load(directory)
    tokenizer.check_fits(len(PIECES))
    with pytest.raises(InputError, match="do not belong together"):
        tokenizer.check_fits(len(PIECES) - 1)
    tokenizer.check_same_vocabulary(Tokenizer.load(directory))
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES[:20] + ["other"] + PIECES[21:]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"id 20 is '{PIECES[20]}' in one and 'other'"):
        tokenizer.check_same_vocabulary(Tokenizer.load(tmp_path))


@pytest.mark.parametrize(
    "name, content, words",
    [
        (None, b"", "no tokenizer.json and no vocab.txt"),
        ("vocab.txt", b"a\nb\n", r"no \[PAD\]"),
        ("vocab.txt", b"\xff\xfe", "not UTF-8"),
        ("tokenizer.json", b"{", "not a tokenizer.json"),
    ],
)
def test_bad_files(tmp_path, name, content, words):
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        Tokenizer.load(tmp_path)


def test_the_last_line_s_end_does_not_matter(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("\r\n".join(PIECES).encode())
    assert Tokenizer.load(tmp_path).vocab_size == len(PIECES)
    assert json.loads(Tokenizer.load(tmp_path).tokenizer.to_str())["model"]["vocab"]["film"] == PIECES.index("film")
