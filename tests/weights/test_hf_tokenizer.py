"""A directory's tokenizer files: the ids are those of transformers' AutoTokenizer on the same directory, as read and as saved; what
is no BERT tokenizer is refused by name."""

import json

import pytest
import tokenizers

from minitinybert.data.tokenizer import Tokenizer
from minitinybert.errors import InputError
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.weights import hf_tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VIETNAMESE, HINDI, THAI, JAPANESE = "tiếng việt đẹp", "में मे की कु", "ภาษาไทยดี", "がか日本ばは"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIGNS = sorted(set("éüàôđ.,!?'[]<>/0123456789" + VIETNAMESE + HINDI + THAI + JAPANESE) - {" ", *LETTERS})
WORDS = [*SPECIAL, "the", "film", "was", "##ing", "new", *LETTERS, *SIGNS, *(f"##{c}" for c in LETTERS), *(f"##{c}" for c in SIGNS)]
CASED = [*WORDS, "The", "Film", *LETTERS.upper(), *(f"##{c}" for c in LETTERS.upper())]
N = len(WORDS)
TEXTS = [
    "The FILM was Filming [E1] the new [E2]. newer NEW",
    "[e1]éÉ ü Àô e\u0301 [MASK] [SEP]a b[E1]",
    VIETNAMESE, HINDI, THAI, JAPANESE, "中文 film\u200d \ufffd x\u2028y", "the film " * 30, "",
]  # fmt: skip
NOT_SPECIAL = {"special": False, "normalized": True}


def entry(content, **more):
    return {"content": content, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True, **more}


def as_json(words=WORDS, lower=True, added=(), normalizer=None, special=True):
    """A tokenizer.json's text."""
    tokenizer = hf_tokenizer.bert_pipeline({word: id for id, word in enumerate(words)}, lower, None)
    tokenizer.normalizer = normalizer or tokenizer.normalizer
    if special:
        tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens(list(added))
    hf_tokenizer.frame(tokenizer)
    return tokenizer.to_str()


def make(path, **contents):
    """A directory: texts, bytes, or what becomes JSON, by the file's name with _ for its dot; vocab.txt is WORDS where there is no
    tokenizer.json."""
    path.mkdir()
    contents = {"config_json": {"model_type": "bert"}, **contents}
    if "tokenizer_json" not in contents:
        contents = {"vocab_txt": "\n".join(WORDS) + "\n", **contents}
    for name, content in contents.items():
        data = content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode()
        (path / ".".join(name.rsplit("_", 1))).write_bytes(data)
    return path


NFD = tokenizers.normalizers.Sequence([tokenizers.normalizers.NFD(), tokenizers.normalizers.Lowercase()])
E1 = tokenizers.AddedToken("[E1]", special=True, normalized=False)
DIRECTORIES = {
    "vocab.txt": {},
    "cased": {"vocab_txt": "\n".join(CASED), "tokenizer_config_json": {"do_lower_case": False}},
    "lower-cased although it has capitals": {"vocab_txt": "\n".join(CASED), "tokenizer_config_json": {"do_lower_case": True}},
    "accents kept": {"tokenizer_config_json": {"strip_accents": False}},
    "accents stripped, case kept": {"tokenizer_config_json": {"strip_accents": True, "do_lower_case": False}},
    "added_tokens.json": {"added_tokens_json": {"[E1]": N, "[E2]": N + 1}},
    "added_tokens.json and a map": {
        "added_tokens_json": {"[E2]": N + 1, "[E1]": N},
        "special_tokens_map_json": {"additional_special_tokens": ["[E1]"], "mask_token": entry("[MASK]", lstrip=True)},
        "tokenizer_config_json": {"additional_special_tokens": ["[E2]"]},
    },
    "a map alone": {"special_tokens_map_json": {"additional_special_tokens": ["[E1]", "[E2]"], "eos_token": "[EOS]"}},
    "added_tokens_decoder": {"tokenizer_config_json": {"added_tokens_decoder": {str(N + 1): entry("[E2]"), str(N): entry("[E1]")}}},
    "found in lower case": {"tokenizer_config_json": {"added_tokens_decoder": {str(N): entry("[E1]", **NOT_SPECIAL)}}},
    "a decoder hides older files": {
        "tokenizer_config_json": {"added_tokens_decoder": {"0": entry("[PAD]")}}, "added_tokens_json": {"[E1]": N},
    },
    "extra_special_tokens": {"tokenizer_config_json": {"extra_special_tokens": ["[E2]", "[E1]"], "bos_token": "[E0]"}},
    "named by the model": {"tokenizer_config_json": {"extra_special_tokens": {"a_token": "[E2]"}, "entity_token": "[E1]"}},
    "lines end in CR LF": {"vocab_txt": "\r\n".join(WORDS) + "\r\n"},
    "empty last lines": {"vocab_txt": "\n".join(WORDS) + "\n\n\n"},
    "empty last lines and a map": {
        "vocab_txt": "\n".join(WORDS) + "\n\n\n", "special_tokens_map_json": {"additional_special_tokens": ["[E1]"]},
    },
    "white space at line ends": {"vocab_txt": " \n".join(WORDS)},
    "a byte order mark": {"vocab_txt": "\ufeff" + "\n".join(WORDS)},
    "tokenizer.json": {"tokenizer_json": as_json()},
    "tokenizer.json, cased": {"tokenizer_json": as_json(CASED, lower=False), "tokenizer_config_json": {"do_lower_case": False}},
    "tokenizer.json, overruled": {"tokenizer_json": as_json(), "tokenizer_config_json": {"do_lower_case": False, "strip_accents": False}},
    "tokenizer.json, overruled by absence": {"tokenizer_json": as_json(lower=False)},
    "tokenizer.json lower-cases capitals": {"tokenizer_json": as_json(CASED)},
    "tokenizer.json, Chinese in one": {"tokenizer_json": as_json(), "tokenizer_config_json": {"tokenize_chinese_chars": False}},
    "tokenizer.json, added": {"tokenizer_json": as_json(added=[E1])},
    "tokenizer.json, added and hidden": {
        "tokenizer_json": as_json(added=[E1]), "tokenizer_config_json": {"added_tokens_decoder": {"0": entry("[PAD]")}},
    },
    "tokenizer.json, none special": {"tokenizer_json": as_json(special=False)},
    "tokenizer.json, another normalizer": {"tokenizer_json": as_json(normalizer=NFD)},
    "its own class": {"tokenizer_json": as_json(normalizer=NFD), "tokenizer_config_json": {"tokenizer_class": "PreTrainedTokenizerFast"}},
    "its own class, added": {
        "tokenizer_json": as_json(added=[E1]),
        "tokenizer_config_json": {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["[E2]"], "do_lower_case": False},
    },
    "cut at the left": {"tokenizer_config_json": {"truncation_side": "left"}},
    "class in config.json": {"config_json": {"model_type": "bert", "tokenizer_class": "DistilBertTokenizer"}},
    **{
        name: {"tokenizer_config_json": {"tokenizer_class": name}}
        for name in ("BertTokenizerFast", "DistilBertTokenizerFast", "ElectraTokenizer", "MobileBertTokenizer", "ConvBertTokenizer")
    },
}  # fmt: skip


def auto(directory):
    transformers = pytest.importorskip("transformers", reason="the judge of the tokenizer is transformers")
    return transformers.AutoTokenizer.from_pretrained(str(directory))


def check_same(ours, theirs, texts=TEXTS):
    for text in texts:
        for length in (7, 512):
            expected = theirs(text, truncation=True, max_length=length)["input_ids"]
            assert ours.encode([text], max_length=length)[0].input_ids.tolist() == expected, text
    pair = theirs(TEXTS[0], TEXTS[1], truncation="longest_first", max_length=12, return_token_type_ids=True)
    mine = ours.encode([TEXTS[0]], [TEXTS[1]], 12)[0]
    assert mine.input_ids.tolist() == pair["input_ids"] and mine.token_type_ids.tolist() == pair["token_type_ids"]


@pytest.mark.parametrize("name", DIRECTORIES)
def test_the_ids_are_transformers_ids_as_read_and_as_saved(tmp_path, name):
    directory = make(tmp_path / "made", **DIRECTORIES[name])
    ours = Tokenizer.load(directory)
    check_same(ours, auto(directory))
    saved = make(tmp_path / "saved", vocab_txt="stale")
    (saved / "vocab.txt").unlink()
    assert hf_tokenizer.write(saved, ours.files, 40) == {*ours.files, "tokenizer_config.json"}
    theirs = auto(saved)
    check_same(ours, theirs)
    check_same(Tokenizer.load(saved), theirs)
    assert theirs.model_max_length == 40 and len(theirs("the film " * 300, truncation=True)["input_ids"]) == 40


def test_a_saved_model_is_right_in_a_pipeline(tmp_path):
    """Mixed case and accents as the model was trained with them, and a text longer than it has positions."""
    transformers = pytest.importorskip("transformers", reason="the judge is transformers")
    pytest.importorskip("torch", reason="the judge's pipeline runs on PyTorch")
    made = make(tmp_path / "made", tokenizer_json=as_json(CASED, lower=False))  # and nothing says do_lower_case
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = Config(vocab_size=len(CASED), max_position_embeddings=24, head="classifier", pooler=True, **shape)
    words = Tokenizer.load(made)
    model = Bert.new(config, 3)
    model.parameters["bert.embeddings.word_embeddings.weight"][...] *= 40  # words decide
    Bert(config, model.parameters, words.files).save(tmp_path / "model")
    told = transformers.pipeline("text-classification", model=str(tmp_path / "model"), top_k=None)
    texts = ["The Film été " * 50, "the film ete", "The Film"]
    for text, answer in zip(texts, told(texts, truncation=True), strict=True):
        encoded = words.encode([text], max_length=24)[0]
        logits = model.forward(encoded.input_ids[None], None, encoded.token_type_ids[None])[0].logits[0].astype(float)
        expected = dict(zip(("LABEL_0", "LABEL_1"), 1 / (1 + pow(2.718281828459045, logits[::-1] - logits)), strict=True))
        assert {row["label"]: row["score"] for row in answer} == pytest.approx(expected, abs=1e-5)


def test_case_is_kept_where_nothing_says_otherwise_and_the_vocabulary_has_capitals(tmp_path, capsys):
    """As Google's cased checkpoints, which bring vocab.txt alone."""
    pieces = lambda tokenizer: [tokenizer.id_to_token(i) for i in tokenizer.encode(["The Film was É"])[0].input_ids[1:-1]]
    cased = make(tmp_path / "cased", vocab_txt="\n".join(CASED))
    assert pieces(Tokenizer.load(cased)) == ["The", "Film", "was", "[UNK]"]
    said = capsys.readouterr().err
    assert "vocab.txt: the vocabulary has capitals" in said and said.count("\n") == 1
    saved = make(tmp_path / "saved")
    hf_tokenizer.write(saved, Tokenizer.load(cased).files)
    capsys.readouterr()
    assert json.loads((saved / "tokenizer_config.json").read_text())["do_lower_case"] is False
    assert pieces(Tokenizer.load(saved)) == ["The", "Film", "was", "[UNK]"] and capsys.readouterr().err == ""
    # capitals in tokens that no text is cut into are none
    uncased = make(tmp_path / "uncased", vocab_txt="\n".join([*WORDS, "[E1]", "<URL>", "[unused1]"]))
    assert pieces(Tokenizer.load(uncased)) == ["the", "film", "was", "e"] and capsys.readouterr().err == ""


def test_a_tokenizer_json_that_is_overruled_is_told_of_and_saved_as_it_counts(tmp_path, capsys):
    made = make(tmp_path / "made", tokenizer_json=as_json(), tokenizer_config_json={"do_lower_case": False})
    ours = Tokenizer.load(made)
    assert "tokenizer.json: its normalizer is not heeded" in capsys.readouterr().err
    saved = make(tmp_path / "saved")
    hf_tokenizer.write(saved, ours.files)
    alone = tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))
    assert alone.encode("The film").tokens == ["[CLS]", "[UNK]", "film", "[SEP]"]
    Tokenizer.load(saved)
    assert capsys.readouterr().err == ""


def test_a_byte_order_mark_is_no_part_of_pad(tmp_path):
    made = make(tmp_path / "made", vocab_txt="\ufeff" + "\n".join(WORDS))
    assert Tokenizer.load(made).pad_id == 0 and Tokenizer.load(made).vocab_size == N
    saved = make(tmp_path / "saved")
    hf_tokenizer.write(saved, Tokenizer.load(made).files)
    assert auto(saved).pad_token_id == 0 and (saved / "vocab.txt").read_bytes().startswith(b"[PAD]\n")


def test_empty_lines_need_no_rows(tmp_path):
    assert Tokenizer.load(make(tmp_path / "made", vocab_txt="\n".join(WORDS) + "\n\n\n")).vocab_size == N


def test_the_length_that_a_directory_asks_for_is_kept_where_the_model_has_it(tmp_path):
    for asked, expected in ((12, 12), (512, 40), (10**30, 40), (None, 40), (0, 40)):
        made = make(tmp_path / f"made{asked}", tokenizer_config_json={"model_max_length": asked})
        saved = make(tmp_path / f"saved{asked}")
        hf_tokenizer.write(saved, Tokenizer.load(made).files, 40)
        assert json.loads((saved / "tokenizer_config.json").read_text())["model_max_length"] == expected


REFUSED = {
    "BertJapaneseTokenizer": {"tokenizer_config_json": {"tokenizer_class": "BertJapaneseTokenizer"}},
    "HerbertTokenizerFast": {"tokenizer_json": as_json(), "tokenizer_config_json": {"tokenizer_class": "HerbertTokenizerFast"}},
    "'MyTokenizer'": {"config_json": {"model_type": "bert", "tokenizer_class": "MyTokenizer"}},
    "is 'PreTrainedTokenizer'": {"tokenizer_json": as_json(), "tokenizer_config_json": {"tokenizer_class": "PreTrainedTokenizer"}},
    "tokenizer_class is 3": {"tokenizer_config_json": {"tokenizer_class": 3}},
    "needs a tokenizer.json": {"tokenizer_config_json": {"tokenizer_class": "PreTrainedTokenizerFast"}},
    "puts no": {
        "tokenizer_json": json.dumps({**json.loads(as_json()), "post_processor": None}),
        "tokenizer_config_json": {"tokenizer_class": "PreTrainedTokenizerFast"},
    },
    "unk_token is '<unk>'": {"tokenizer_config_json": {"unk_token": "<unk>"}},
    "cls_token is '<s>'": {"special_tokens_map_json": {"cls_token": "<s>"}},
    rf"'\[E1\]' is noted as id {N + 3}, and its place is {N}": {"added_tokens_json": {"[E1]": N + 3}},
    f"noted as id 7, and its place is {N}": {"tokenizer_config_json": {"added_tokens_decoder": {"7": entry("[E1]")}}},
    "would have the id of 'the'": {
        "vocab_txt": "\n".join([*WORDS, "the", "new"]), "special_tokens_map_json": {"additional_special_tokens": ["[E1]", "[E2]"]},
    },
    r"the id of '\[E1\]' is 'x'": {"added_tokens_json": {"[E1]": "x"}},
    "added_tokens_decoder does not give": {"tokenizer_config_json": {"added_tokens_decoder": ["[E1]"]}},
    "extra_special_tokens is 'x'": {"tokenizer_config_json": {"extra_special_tokens": "x"}},
    "mask_token of the tokenizer's files holds": {"special_tokens_map_json": {"mask_token": ["[MASK]"]}},
    "split_special_tokens": {"tokenizer_config_json": {"split_special_tokens": True}},
    "truncation_side is 'middle'": {"tokenizer_config_json": {"truncation_side": "middle"}},
    "WordPiece is needed; to take": {"tokenizer_json": tokenizers.Tokenizer(tokenizers.models.BPE()).to_str()},
    "no tokenizer.json and no vocab.txt": {"tokenizer_json": b"", "tokenizer_config_json": {}},
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_no_bert_tokenizer_is_refused_by_name(tmp_path, words):
    made = make(tmp_path / "made", **REFUSED[words])
    if REFUSED[words].get("tokenizer_json") == b"":
        (made / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=words) as refused:
        Tokenizer.load(made)
    assert "\n" not in str(refused.value)
    # a model of another tokenizer can still be converted: its files go along as they are
    saved = make(tmp_path / "saved")
    files = {name: made / name for name in hf_tokenizer.TOKENIZER_FILES if (made / name).is_file()}
    assert hf_tokenizer.write(saved, files) == set(files)
    assert all((saved / name).read_bytes() == path.read_bytes() for name, path in files.items())
    assert all("copied as they are" in note for note in hf_tokenizer.notes(files))
