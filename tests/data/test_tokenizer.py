"""The tokenizer against transformers' own on drawn text; what is baked into a tokenizer.json; vocabularies that do not fit."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

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
    st.sampled_from(
        ["", "x" * 100, "x" * 101, "[MASK] film [SEP]", "[mask]", "a[MASK]b", "e\u0301 É\ufffd\u2028İſ", "👩‍👩‍👧 film", "film " * 30]
    ),
)


@settings(max_examples=150)
@given(texts, st.none() | texts.filter(bool), st.integers(5, 20))  # an empty pair is no pair to transformers
def test_ids_are_transformers_ids(directory, theirs, text, pair, max_length):
    ours = Tokenizer.load(directory).encode([text], None if pair is None else [pair], max_length)[0]
    expected = theirs(text, pair, max_length=max_length, truncation="longest_first", return_token_type_ids=True)
    assert ours.input_ids.tolist() == expected["input_ids"]
    assert ours.token_type_ids.tolist() == expected["token_type_ids"]


def test_a_tokenizer_json_gives_the_same_ids(directory, tmp_path):
    tokenizer = Tokenizer.load(directory)
    tokenizer.tokenizer.save(str(tmp_path / "tokenizer.json"))
    again = Tokenizer.load(tmp_path)
    assert again.same_vocabulary(tokenizer) and list(again.files) == ["tokenizer.json"] and list(tokenizer.files) == ["vocab.txt"]
    for mine, theirs in zip(again.encode(["é 中 film"], ["the"]), tokenizer.encode(["é 中 film"], ["the"]), strict=True):
        assert all((a == b).all() and a.dtype == b.dtype == "int32" for a, b in zip(mine, theirs, strict=True))


def test_the_longer_text_is_cut_first(directory):
    tokenizer = Tokenizer.load(directory)
    words = lambda a, b, n: [tokenizer.id_to_token(i) for i in tokenizer.encode([a], [b], n)[0].input_ids if i not in (2, 3)]
    assert words("a b c d e f", "x y", 8) == ["a", "b", "c", "x", "y"]
    assert words("x y", "a b c d e f", 8) == ["x", "y", "a", "b", "c"]
    assert words("a b c d", "w x y z", 8) == ["a", "b", "w", "x", "y"]  # an odd length: B has the extra piece where both were as long


@pytest.mark.parametrize("pairs, length, least", [(None, 2, 3), (["b"], 4, 5)])
def test_lengths_without_room_are_refused(directory, pairs, length, least):
    tokenizer = Tokenizer.load(directory)
    with pytest.raises(InputError, match=f"max_length {length}: at least {least}"):
        tokenizer.encode(["a a a"], pairs, length)
    assert len(tokenizer.encode(["a a a"], pairs, least)[0].input_ids) == least


def test_half_a_surrogate_pair_is_no_text(directory):
    with pytest.raises(InputError, match=r"'bad \\udcff': not valid Unicode"):
        Tokenizer.load(directory).encode(["a", "bad \udcff"])
    assert len(Tokenizer.load(directory).encode(["a"])[0].input_ids) == 3


@pytest.mark.parametrize(
    "texts, said",
    [
        (["the film", "film é"], []),
        (["the film " * 5, "ж"], ["of 1 of 2"]),  # and one of eleven pieces
        (["the film " * 5, "the ж"], []),
        (["the film the", "the ж"], ["20%"]),
        (["the film"] * 10 + ["ж"], []),
        (["the film"] * 9 + ["ж"], ["of 1 of 10"]),
        (["", "[CLS]"], []),
    ],
)
def test_text_that_the_vocabulary_does_not_know_is_told_of(directory, capsys, texts, said):
    tokenizer = Tokenizer.load(directory)
    tokenizer.check_known([e.input_ids for e in tokenizer.encode(texts)], "here")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(said) and all(
        line.startswith("warning: here: ") and word in line for line, word in zip(lines, said, strict=True)
    )


def test_text_of_which_nothing_is_known_is_refused(directory, capsys):
    tokenizer = Tokenizer.load(directory)
    encoded = [e.input_ids for e in tokenizer.encode(["ж ж", "ш", ""])]
    with pytest.raises(InputError, match=r"here: every word is \[UNK\] to the vocabulary of .*vocab.txt"):
        tokenizer.check_known(encoded, "here")
    with pytest.raises(InputError, match="every word"):
        tokenizer.check_share(7, 7, "here")
    assert capsys.readouterr().err == ""
    tokenizer.check_known(encoded, "here", must=False)
    assert "100% of the word pieces" in (err := capsys.readouterr().err) and "of 2 of 3 texts" in err
    tokenizer.check_known([e.input_ids for e in tokenizer.encode(["the"] * 50 + ["ж"])], "here", must=False)
    assert "of 1 of 51 texts" in capsys.readouterr().err


def test_a_piece_that_stands_twice_does_not_hide_the_highest_id(directory, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*PIECES, "the"]) + "\n", encoding="utf-8")
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode(["the"])[0].input_ids[1] == len(PIECES)
    with pytest.raises(InputError, match="do not belong together"):
        tokenizer.check_fits(len(PIECES))


@pytest.mark.parametrize(
    "settings_, text, pieces",
    [
        ("{}", "É中中", ["e", "中", "中"]),
        ('{"do_lower_case": null, "strip_accents": null}', "É", ["e"]),
        ('{"strip_accents": false}', "É", ["é"]),
        ('{"do_lower_case": false}', "é", ["é"]),
        ('{"do_lower_case": false, "strip_accents": true}', "é", ["e"]),
        ('{"tokenize_chinese_chars": false}', "中中", ["[UNK]"]),
    ],
)
def test_tokenizer_config_is_heeded(directory, tmp_path, settings_, text, pieces):
    (tmp_path / "vocab.txt").write_bytes((directory / "vocab.txt").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(settings_)
    tokenizer = Tokenizer.load(tmp_path)
    assert [tokenizer.id_to_token(i) for i in tokenizer.encode([text])[0].input_ids[1:-1]] == pieces


@pytest.mark.parametrize(
    "content, words", [("[]", "holds a JSON list"), ("{", "not JSON"), ('{"do_lower_case": "yes"}', "do_lower_case is 'yes'")]
)
def test_a_bad_tokenizer_config(directory, tmp_path, content, words):
    (tmp_path / "vocab.txt").write_bytes((directory / "vocab.txt").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(InputError, match=words):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_file_without_cls_and_sep_gets_them(directory, tmp_path):
    inner = Tokenizer.load(directory).tokenizer
    inner.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    inner.save(str(tmp_path / "tokenizer.json"))
    ours, theirs = (Tokenizer.load(d).encode(["the film"], ["a b"])[0] for d in (tmp_path, directory))
    assert ours.input_ids.tolist() == theirs.input_ids.tolist() and ours.token_type_ids.tolist() == theirs.token_type_ids.tolist()


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
    assert tokenizer.same_vocabulary(Tokenizer.load(directory))
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES[:20] + ["other"] + PIECES[21:]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"id 20 is '{PIECES[20]}' in one and 'other'"):
        tokenizer.check_same_vocabulary(Tokenizer.load(tmp_path))
    assert not tokenizer.same_vocabulary(Tokenizer.load(tmp_path))
    (tmp_path / "vocab.txt").write_text("\n".join([*PIECES, "more"]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"id {len(PIECES)} is None in one and 'more'"):
        tokenizer.check_same_vocabulary(Tokenizer.load(tmp_path))
    with pytest.raises(InputError, match="no such file"):
        Tokenizer.load({"vocab.txt": tmp_path / "nowhere" / "vocab.txt"})


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
