"""What the tokenizer's files of a model directory mean, and what is written of them: the ids are
those that `AutoTokenizer` of transformers 5 makes of the same directory, or there is an InputError.

    tokenizer_class (tokenizer_config.json, or else config.json), absent: BERT's
        BERT's                   a pipeline built anew from the vocabulary of tokenizer.json, or else of vocab.txt;
                                 tokenizer_config.json's switches decide, whatever tokenizer.json says of them
        PreTrainedTokenizerFast  tokenizer.json as it is
        any other                is refused: Japanese words, say, are cut by MeCab first
    added tokens                 tokenizer_config.json's added_tokens_decoder; where it has none, those of
                                 special_tokens_map.json, added_tokens.json and tokenizer.json

One thing differs: where nothing says do_lower_case and the vocabulary has capitals, as Google's
cased checkpoints do, their case is kept; transformers would lower-case.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from ..errors import InputError
from ..files import read_json, replacing, write_json

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")  # in transformers' order
_OF_BERT = {  # with or without "Fast": other names of BertTokenizer, or classes that inherit all of it
    f"{name}Tokenizer" for name in ("Bert", "DistilBert", "Electra", "MobileBert", "ConvBert", "LayoutLM", "SqueezeBert", "Lxmert")
}  # fmt: skip
_OF_ITS_FILE = {"PreTrainedTokenizer", "TokenizersBackend"}  # the first with "Fast"


class Pipeline(NamedTuple):
    """tokenizer: the steps from text to ids. config: what a tokenizer_config.json says of them.
    other_steps: those in tokenizer.json are others, and not heeded. notes: what a user should
    know."""

    tokenizer: tokenizers.Tokenizer
    config: dict[str, Any]
    other_steps: bool
    notes: tuple[str, ...]


def build(files: Mapping[str, Path]) -> Pipeline:
    """The tokenizer that a directory's files, by name, mean.

    InputError names the file that is not what its name says, or means a tokenizer that is not
    BERT's: another class, other special tokens, an added token whose id is not the one noted.
    """
    config = read_json(files["tokenizer_config.json"]) if "tokenizer_config.json" in files else {}
    if not files.keys() & {"tokenizer.json", "vocab.txt"}:
        raise InputError(f"{_place(files)}: no tokenizer.json and no vocab.txt; put the model's own there")
    if config.get("split_special_tokens"):
        raise InputError(f"{files['tokenizer_config.json']}: split_special_tokens is not read; take it out where texts hold no [SEP]")
    if config.get("truncation_side", "right") not in ("right", "left"):
        raise InputError(f"{files['tokenizer_config.json']}: truncation_side is {config['truncation_side']!r}; right or left is needed")
    if _class(config, files) in _OF_BERT:
        return _bert(config, files)
    if "tokenizer.json" not in files:
        raise InputError(
            f"{_place(files)}: tokenizer_class {config.get('tokenizer_class')} needs a tokenizer.json; put the model's own there"
        )
    tokenizer = _from_json(files["tokenizer.json"])
    _add_tokens(tokenizer, config, files, {}, tokenizer)
    if tokenizer.encode("").tokens != ["[CLS]", "[SEP]"]:
        raise InputError(f"{files['tokenizer.json']}: puts no [CLS] and [SEP] around a text; a BERT tokenizer is needed")
    special = {name: token for name, token in SPECIAL.items() if token in map(str, tokenizer.get_added_tokens_decoder().values())}
    return Pipeline(tokenizer, {**special, **config, "tokenizer_class": "PreTrainedTokenizerFast"}, False, ())


def bert_pipeline(
    vocabulary: Mapping[str, int], lower_case: bool, strip_accents: bool | None, chinese: bool = True
) -> tokenizers.Tokenizer:
    """BERT's: clean, space Chinese characters, lower-case and strip accents (None: as lower_case
    says), split at white space and punctuation, WordPiece; [CLS] and [SEP] are not put in yet."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(dict(vocabulary), unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=chinese, strip_accents=strip_accents, lowercase=lower_case
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def settings(lower_case: bool, strip_accents: bool | None, chinese: bool = True) -> dict[str, Any]:
    """What a tokenizer_config.json says of `bert_pipeline`."""
    switches = {"do_lower_case": lower_case, "strip_accents": strip_accents, "tokenize_chinese_chars": chinese}
    return {"tokenizer_class": "BertTokenizer", **switches}


def frame(tokenizer: tokenizers.Tokenizer) -> None:
    """[CLS] A [SEP], or [CLS] A [SEP] B [SEP], with two token types."""
    sep, cls = tokenizer.token_to_id("[SEP]"), tokenizer.token_to_id("[CLS]")
    assert sep is not None and cls is not None
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))


def write(directory: Path, files: Mapping[str, Path], positions: Any = None) -> set[str]:
    """Copies of `files`, and always a tokenizer_config.json that says what `build` made of them, so
    that whoever opens the directory gets the same ids.

    positions: how many the model has (of its config.json), to which transformers then cuts a text
    where it is told to cut. vocab.txt loses a byte order mark, which transformers would take for a
    part of [PAD]; tokenizer.json gets the normalizer that counts. Files that `build` refuses are
    copied as they are. Returns the names of what was written.
    """
    pipeline = None
    with suppress(InputError):
        pipeline = build(files) if files else None
    for name, source in files.items():
        if name == "tokenizer_config.json" and pipeline is not None:
            continue
        with replacing(directory / name) as beside:
            if name == "vocab.txt":
                beside.write_bytes(source.read_bytes().removeprefix(b"\xef\xbb\xbf"))
            elif name == "tokenizer.json" and pipeline is not None and pipeline.other_steps:
                made = json.loads(pipeline.tokenizer.to_str())
                steps = {**read_json(source), "normalizer": made["normalizer"], "pre_tokenizer": made["pre_tokenizer"]}
                beside.write_text(json.dumps(steps, ensure_ascii=False, indent=2), encoding="utf-8")
            else:
                shutil.copyfile(source, beside)
    if pipeline is None:
        return set(files)
    config = dict(pipeline.config)
    if type(positions) is int:
        given = config.get("model_max_length")
        config["model_max_length"] = given if type(given) is int and 0 < given < positions else positions
    write_json(directory / "tokenizer_config.json", config)
    return {*files, "tokenizer_config.json"}


def notes(files: Mapping[str, Path]) -> list[str]:
    """What a user should know of the files that `write` copies: a line each."""
    if not files:
        return []
    try:
        return list(build(files).notes)
    except InputError as error:
        return [f"{error}; the tokenizer's files are copied as they are"]


# ------------------------------------------------------------------------------------------------------------------ reading


def _place(files: Mapping[str, Path]) -> Path:
    return next(iter(files.values())).parent


def _class(config: Mapping[str, Any], files: Mapping[str, Path]) -> str:
    """The tokenizer's class without "Fast"; InputError for one that is not read."""
    found, path = config.get("tokenizer_class"), files.get("tokenizer_config.json")
    beside = _place(files) / "config.json"
    if found is None and beside.is_file():
        found, path = read_json(beside).get("tokenizer_class"), beside
    if found is None:
        return "BertTokenizer"
    name = found.removesuffix("Fast") if isinstance(found, str) else None
    if name not in _OF_BERT | _OF_ITS_FILE or found == "PreTrainedTokenizer":
        raise InputError(
            f"{path}: tokenizer_class is {found!r}; only BertTokenizer's word pieces are read, and this may cut text otherwise"
        )
    return name


def _from_json(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception for whatever is wrong in the file
        raise InputError(f"{path}: not a tokenizer.json ({error})") from None


def _from_text(path: Path) -> dict[str, int]:
    """{piece: id} of a vocab.txt, a piece a line, by the library's reader, as transformers does it:
    white space at a line's end is none of the piece's; of a piece that stands twice the last."""
    try:
        vocabulary = models.WordPiece.read_file(str(path))
    except Exception:
        try:
            path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 (byte {error.start}); download it again") from None
        raise InputError(f"{path}: cannot be read; download it again") from None
    return {(piece.removeprefix("\ufeff") if id == 0 else piece): id for piece, id in vocabulary.items()}


def _bert(config: dict[str, Any], files: Mapping[str, Path]) -> Pipeline:
    """BERT's pipeline on the vocabulary of tokenizer.json, or else of vocab.txt."""
    found: tokenizers.Tokenizer | None = None
    if "tokenizer.json" in files:
        path = files["tokenizer.json"]
        found = _from_json(path)
        if not isinstance(found.model, models.WordPiece):
            raise InputError(
                f"{path}: its model is {type(found.model).__name__}, where BERT's WordPiece is needed; to take the file as it is, "
                'write {"tokenizer_class": "PreTrainedTokenizerFast"} in tokenizer_config.json'
            )
        vocabulary = found.get_vocab(with_added_tokens=False)
    else:
        path = files["vocab.txt"]
        vocabulary = _from_text(path)
    for token in SPECIAL.values():
        if token not in vocabulary and (found is None or found.token_to_id(token) is None):
            raise InputError(f"{path}: the vocabulary has no {token}; a BERT vocabulary is needed")
    switch = lambda name: _switch(config, files.get("tokenizer_config.json"), name)
    normalizer = found.normalizer if found is not None and isinstance(found.normalizer, normalizers.BertNormalizer) else None
    said: list[str] = []
    lower, strip, chinese = switch("do_lower_case"), switch("strip_accents"), switch("tokenize_chinese_chars") is not False
    if lower is None:
        lower = (normalizer is not None and normalizer.lowercase) or not _has_capitals(vocabulary)
        if not lower:
            said.append(
                f"{path}: the vocabulary has capitals and no tokenizer_config.json says do_lower_case: case is kept "
                "(transformers would lower-case)"
            )
    tokenizer = bert_pipeline(vocabulary, lower, strip, chinese)
    _add_tokens(tokenizer, config, files, SPECIAL, found)
    frame(tokenizer)
    other = found is not None and _steps(found) != _steps(tokenizer)
    if other:
        said.append(f"{path}: its normalizer is not heeded; the switches of tokenizer_config.json decide, as in transformers")
    given = {name: value for name, value in config.items() if value is not None}
    return Pipeline(tokenizer, {**SPECIAL, **given, **settings(lower, strip, chinese)}, other, tuple(said))


def _steps(tokenizer: tokenizers.Tokenizer) -> tuple[Any, ...]:
    """What is done to a text before its words are cut into pieces."""
    normalizer, words = tokenizer.normalizer, type(tokenizer.pre_tokenizer)
    if not isinstance(normalizer, normalizers.BertNormalizer):
        return type(normalizer), words
    strip = normalizer.lowercase if normalizer.strip_accents is None else normalizer.strip_accents
    return type(normalizer), words, normalizer.clean_text, normalizer.handle_chinese_chars, normalizer.lowercase, strip


def _switch(config: Mapping[str, Any], path: Path | None, name: str) -> bool | None:
    """true or false of tokenizer_config.json; None for null and where the entry is absent."""
    value = config.get(name)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{path}: {name} is {value!r}; true or false is needed")
    return value


def _has_capitals(vocabulary: Mapping[str, int]) -> bool:
    """Whether a piece of letters and digits alone, which a lower-cased text could never give, is
    there; [CLS] and the like are none."""
    return any((word := piece.removeprefix("##")).isalnum() and word != word.lower() for piece in vocabulary)


# ------------------------------------------------------------------------------------------------------------- added tokens


def _add_tokens(
    tokenizer: tokenizers.Tokenizer,
    config: Mapping[str, Any],
    files: Mapping[str, Path],
    named: Mapping[str, str],
    found: tokenizers.Tokenizer | None,
) -> None:
    """What transformers adds to a tokenizer, in its order: the tokens noted with ids, by these; the
    named ones ([CLS] …; `named`: those that the class has without being told), and further special
    tokens. found: tokenizer.json, where there is one. InputError where a token gets another id than
    was noted, or that of another piece."""
    settings = {**named, **config}
    settings["extra_special_tokens"] = settings.get("extra_special_tokens") or settings.pop("additional_special_tokens", None) or []
    noted = dict(_noted(settings, files, found))
    tokens = [token for _, token in sorted(noted.items(), key=lambda entry: entry[0])]
    names = {token.content for token in [*tokenizer.get_added_tokens_decoder().values(), *tokens]}
    others = sorted(set(settings) - set(_NAMED), key=list(settings).index)
    singles = [*_NAMED, *(name for name in others if name.endswith("_token"))]
    for place, value in [*((name, settings.get(name)) for name in singles), *_several(settings, files)]:
        if value is None or (place not in _NAMED and not isinstance(value, (str, dict))):
            continue
        token = _token(value, place, files, special=True)
        if SPECIAL.get(place, token.content) != token.content:
            raise InputError(f"{_place(files)}: the tokenizer's {place} is {token.content!r}; BERT's {SPECIAL[place]} is needed")
        if token.content not in names:
            names.add(token.content)
            tokens.append(token)
    tokenizer.add_tokens(tokens)
    for id, token in noted.items():
        if (given := tokenizer.token_to_id(token.content)) != id:
            raise InputError(
                f"{_place(files)}: the added token {token.content!r} is noted as id {id}, and its place is {given}; repair the files"
            )
    for token in tokens:
        given = tokenizer.token_to_id(token.content)
        other = None if given is None else tokenizer.model.id_to_token(given)
        if other not in (None, "", token.content):  # the empty piece, of empty lines, is in no text
            raise InputError(
                f"{_place(files)}: the added token {token.content!r} would have the id of {other!r}; does a piece stand twice?"
            )


def _several(settings: Mapping[str, Any], files: Mapping[str, Path]) -> Iterator[tuple[str, Any]]:
    """The further special tokens, each with the name of the entry it stands in."""
    values = settings["extra_special_tokens"]
    if not isinstance(values, (list, dict)):
        raise InputError(f"{_place(files)}: extra_special_tokens is {values!r}; a list of tokens is needed")
    yield from (("extra_special_tokens", value) for value in (values.values() if isinstance(values, dict) else values))


def _noted(settings: dict[str, Any], files: Mapping[str, Path], found: tokenizers.Tokenizer | None) -> Iterator[tuple[int, AddedToken]]:
    """The tokens that are noted with their ids. Where tokenizer_config.json notes none, older files
    do, and special_tokens_map.json goes before it in `settings`, which is changed."""
    if "added_tokens_decoder" in settings:
        entries = settings["added_tokens_decoder"]
        ids = isinstance(entries, dict) and all(re.fullmatch(r"[0-9]{1,9}", key) for key in entries)
        if not ids or not all(isinstance(value, dict) for value in entries.values()):
            raise InputError(f"{files['tokenizer_config.json']}: added_tokens_decoder does not give a token for each id; download it again")
        yield from ((int(key), _token(value, "added_tokens_decoder", files)) for key, value in entries.items())
        return
    special: set[str] = set()
    if "special_tokens_map.json" in files:
        settings.update(read_json(files["special_tokens_map.json"]))
    special |= {_token(settings[name], name, files).content for name in _NAMED if settings.get(name)}
    special |= {_token(value, name, files).content for name, value in _several(settings, files)}
    if not settings["extra_special_tokens"]:  # only now, as transformers does it
        settings["extra_special_tokens"] = settings.pop("additional_special_tokens", None) or []
    if "added_tokens.json" in files:
        for content, id in read_json(files["added_tokens.json"]).items():
            if not isinstance(id, int) or isinstance(id, bool) or id < 0:
                raise InputError(f"{files['added_tokens.json']}: the id of {content!r} is {id!r}; a whole number is needed")
            yield id, AddedToken(content, normalized=content not in special, special=content in special)
    if found is not None:
        yield from found.get_added_tokens_decoder().items()


def _token(value: Any, place: str, files: Mapping[str, Path], special: bool = False) -> AddedToken:
    """A token as JSON has it: its text, or an object with that and how it is found in a text."""
    fields = {"content": value} if isinstance(value, str) else value
    try:
        fields = {name: field for name, field in fields.items() if name not in ("__type", "id")}
        content = fields.pop("content")
        return AddedToken(content, **{**fields, **({"special": True} if special else {})})
    except (TypeError, AttributeError, KeyError, UnicodeEncodeError):
        raise InputError(f"{_place(files)}: {place} of the tokenizer's files holds {value!r}; a token's text is needed") from None
