"""SQuAD's files, windows, where answers lie in them, and the best answer of all windows."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_mlm import tokenizer

from minitinybert.data.batching import EncodedExamples
from minitinybert.data.squad import Answer, best_answers, encode_questions, read_questions, read_windows, squad_task, windows, write_answers
from minitinybert.data.tokenizer import Tokenizer
from minitinybert.errors import InputError

TOWN = "The old mill of Ávila stood by the river. In 1904 a fire took it; Zoë Brandt built it anew."
LAKE = "A lake is good. The lake of love was a good story, and it was very dull."


def answered(context, *texts):
    return [{"text": text, "answer_start": context.index(text)} for text in texts]


def official(version="1.1", **changes):
    """Two documents and three questions, one of them without an answer in 2.0."""
    town = [
        {"id": "t1", "question": "Who built the mill anew?", "answers": answered(TOWN, "Zoë Brandt", "Brandt")},
        {"id": "t2", "question": "When did it burn?", "answers": answered(TOWN, "1904")},
    ]
    lake = [{"id": "l1", "question": "What was dull?", "answers": answered(LAKE, "story")}]
    if version.startswith("v2"):
        plausible = {"is_impossible": True, "plausible_answers": answered(LAKE, "love")}
        lake.append({"id": "l2", "question": "Who drowned?", "answers": [], **plausible})
    paragraphs = [{"context": TOWN, "qas": town}, {"context": LAKE, "qas": lake}]
    return {"version": version, "data": [{"title": "places", "paragraphs": paragraphs}], **changes}


def write(directory, split="train-v1.1", content=None):
    path = directory / f"{split}.json"
    path.write_text(json.dumps(official() if content is None else content, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.fixture
def words(tmp_path):
    return tokenizer(tmp_path / "words")


# -------------------------------------------------------------------------------------------------------------------- reading


def test_the_official_files(tmp_path):
    write(tmp_path)
    write(tmp_path, "dev-v2.0", official("v2.0"))
    first, second = (read_questions(tmp_path, split) for split in ("train", "dev"))
    assert [q.id for q in first.questions] == ["t1", "t2", "l1"] and not first.second and first.labelled
    assert first.questions[0].answers == [("Zoë Brandt", TOWN.index("Zoë")), ("Brandt", TOWN.index("Brandt"))]
    assert second.second and second.questions[3].answers == [] and second.labelled
    assert read_questions(tmp_path / "dev-v2.0.json", "test").questions == second.questions


def test_the_hub_s_rows(tmp_path):
    at = {"text": ["1904"], "answer_start": [TOWN.index("1904")]}
    rows = [
        {"id": "t2", "title": "x", "context": TOWN, "question": "When?", "answers": at},
        {"id": "l2", "title": "x", "context": LAKE, "question": "Who?", "answers": {"text": [], "answer_start": []}},
    ]
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train-00000-of-00001.parquet")
    for split in ("dev", "train"):
        read = read_questions(tmp_path, split)
        assert read.second and [q.answers for q in read.questions] == [[("1904", TOWN.index("1904"))], []]


def test_a_test_file_may_have_no_answers(tmp_path):
    content = official()
    for paragraph in content["data"][0]["paragraphs"]:
        for row in paragraph["qas"]:
            del row["answers"]
    write(tmp_path, "test", content)
    assert not read_questions(tmp_path, "test").labelled
    write(tmp_path, "train", content)
    with pytest.raises(InputError, match="train.json: question t1 has no answers to learn from"):
        read_windows(squad_task(), tmp_path, "train", tokenizer(tmp_path / "words"), 50, 2)


def spoilt(change):
    content = official()
    change(content["data"][0]["paragraphs"][1])
    return content


@pytest.mark.parametrize(
    "content, message",
    [
        ([1], "no list 'data' in it"),
        ({"data": [{"title": "x"}]}, r"data\[0\]: no list 'paragraphs'"),
        ({"data": ["x"]}, r"data\[0\]: 'x', where an object belongs"),
        ({"data": []}, "no questions in it"),
        (spoilt(lambda p: p.pop("context")), r"paragraphs\[1\].qas\[0\]: context is None; a string"),
        (spoilt(lambda p: p["qas"][0].update(question=3)), r"qas\[0\]: question is 3; a string"),
        (spoilt(lambda p: p["qas"][0].update(answers="story")), r"qas\[0\]: answers is 'story'; a list"),
        (spoilt(lambda p: p["qas"][0].update(answers=[{"text": "story", "answer_start": "7"}])), "the number of a char"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, content, message):
    write(tmp_path, content=content)
    with pytest.raises(InputError, match=f"train-v1.1.json.*{message}"):
        read_questions(tmp_path, "train")


def test_which_file(tmp_path):
    with pytest.raises(InputError, match=r"no dev\*\{.json,.jsonl,.parquet\} in it"):
        read_questions(tmp_path, "dev")
    write(tmp_path, "dev-v1.1")
    write(tmp_path, "dev-v2.0")
    with pytest.raises(InputError, match=r"holds dev-v1.1.json and dev-v2.0.json"):
        read_questions(tmp_path, "dev")
    with pytest.raises(InputError, match="training needs a directory"):
        read_questions(tmp_path / "dev-v1.1.json", "train")
    with pytest.raises(InputError, match="no such file or directory"):
        read_questions(tmp_path / "nowhere", "dev")
    (tmp_path / "test.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="test.json: not JSON"):
        read_questions(tmp_path, "test")


def test_an_answer_that_is_not_in_its_place_is_not_learned(tmp_path, words, capsys):
    write(tmp_path, content=spoilt(lambda p: p["qas"][0]["answers"][0].update(answer_start=3)))
    examples = read_windows(squad_task(), tmp_path, "train", words, 100, 2)
    assert [q.id for q in examples.questions.questions] == ["t1", "t2"]
    assert "1 questions whose answer is not where it says, such as l1, are left out" in capsys.readouterr().err
    write(tmp_path, "dev", spoilt(lambda p: p["qas"][0]["answers"][0].update(answer_start=3)))
    assert len(read_windows(squad_task(), tmp_path, "dev", words, 100, 2).questions.questions) == 3  # judged by its text


# ------------------------------------------------------------------------------------------------------------------- windows


@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 20))
def test_windows_leave_no_piece_out(pieces, room, stride):
    found = windows(pieces, room, stride)
    assert sorted({i for start, n in found for i in range(start, start + n)}) == list(range(pieces))
    assert all(n <= room for _, n in found)
    assert all(b - a == min(stride, room) for (a, _), (b, _) in zip(found, found[1:], strict=False))
    assert len(found) == 1 or sum(found[-2]) < pieces  # no window for nothing


def test_a_window_is_question_and_document(tmp_path, words):
    write(tmp_path)
    examples = read_windows(squad_task(doc_stride=8, max_query_length=4), tmp_path, "train", words, 20, 2)
    spelt = [[words.id_to_token(int(i)) for i in ids] for ids in examples.input_ids]
    first = spelt[0]
    assert first[:6] == ["[CLS]", "w", "##h", "##o", "b", "[SEP]"] and first[-1] == "[SEP]" and len(first) == 20  # the question is cut at 4
    assert examples.token_type_ids[0].tolist() == [0] * 6 + [1] * 14
    assert examples.head[0] == 6 and examples.first[:3] == [0, 8, 16]
    assert all(len(ids) <= 20 for ids in examples.input_ids)
    one_segment = read_windows(squad_task(), tmp_path, "train", words, 100, 1)
    assert not any(types.any() for types in one_segment.token_type_ids)
    assert isinstance(one_segment, EncodedExamples) and one_segment.labelled


@pytest.mark.parametrize("length", [20, 24, 200])
def test_where_answers_begin_and_end(tmp_path, words, length):
    """In every window that has all of an answer its characters, through lower case and stripped accents; elsewhere [CLS]."""
    write(tmp_path)
    task = squad_task(doc_stride=3, max_query_length=6)
    examples = read_windows(task, tmp_path, "train", words, length, 2)
    held = {}
    for w, (begin, end) in enumerate(examples.labels):
        question = examples.questions.questions[examples.question[w]]
        (text, start), spans = question.answers[0], examples.spans[examples.question[w]]
        if not begin:
            assert end == 0
            own = spans[examples.first[w] : examples.first[w] + len(examples.input_ids[w]) - examples.head[w] - 1]
            assert not (own[0, 0] <= start and own[-1, 1] >= start + len(text))
            continue
        from_, to = (spans[examples.first[w] + place - examples.head[w]] for place in (begin, end))
        assert question.context[from_[0] : to[1]] == text
        held[question.id] = held.get(question.id, 0) + 1
    assert set(held) == {"t1", "t2", "l1"}


ODD = ["Ávila, ÀÉ", "中文 is a 中", "İstanbul was good", "ﬁne e\u0301tude", "a\u200bb \x07dull", "  the   film\n\nwas"]


@pytest.mark.parametrize("text", ODD)
def test_offsets_are_the_text_s_own(words, text):
    """Each piece's characters spell it, whatever was lowered, stripped, cleaned away or written in two code points."""
    ((ids, spans),) = words.encode_spans([text])
    assert len(ids) == len(spans) and (spans[:, 0] < spans[:, 1]).all() and (np.diff(spans[:, 0]) >= 0).all()
    for id, (begin, end) in zip(ids, spans, strict=True):
        piece = words.id_to_token(int(id)).removeprefix("##")
        ((again, _),) = words.encode_spans([text[begin:end]])
        assert piece == "[UNK]" or "".join(words.id_to_token(int(i)).removeprefix("##") for i in again) == piece


def test_a_question_that_leaves_no_room(tmp_path, words):
    write(tmp_path)
    with pytest.raises(InputError, match="--max-length 9 leaves no room for a text beside question t1, of 18 pieces"):
        read_windows(squad_task(), tmp_path, "train", words, 9, 2)
    with pytest.raises(InputError, match="--doc-stride 0: a whole number above 0"):
        squad_task(doc_stride=0)


def test_transformers_cuts_the_same_windows(tmp_path, words):
    """Its fast tokenizers' stride is the overlap: what is left of a window after doc_stride pieces."""
    transformers = pytest.importorskip("transformers")
    write(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.load(tmp_path / "words").tokenizer,
        cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]", pad_token="[PAD]", model_input_names=["input_ids", "token_type_ids"],
    )  # fmt: skip
    examples = read_windows(squad_task(doc_stride=7), tmp_path, "train", words, 50, 2)
    for number, question in enumerate(examples.questions.questions):
        own = [w for w, q in enumerate(examples.question) if q == number]
        room = 50 - examples.head[own[0]] - 1
        encoded = theirs(
            question.question, question.context, max_length=50, truncation="only_second", stride=room - 7,
            return_overflowing_tokens=True, return_offsets_mapping=True,
        )  # fmt: skip
        assert [examples.input_ids[w].tolist() for w in own] == encoded["input_ids"]
        assert [examples.token_type_ids[w].tolist() for w in own] == encoded["token_type_ids"]
        for w, offsets in zip(own, encoded["offset_mapping"], strict=True):
            n = len(offsets) - examples.head[w] - 1
            assert examples.spans[number][examples.first[w] : examples.first[w] + n].tolist() == [
                list(o) for o in offsets[examples.head[w] : -1]
            ]


# ------------------------------------------------------------------------------------------------------------------- answering


def some(tmp_path, words, length=24, stride=6, version="1.1"):
    write(tmp_path, "dev", official(version))
    return read_windows(squad_task(doc_stride=stride, max_query_length=6), tmp_path, "dev", words, length, 2)


def by_hand(examples, logits, question, longest):
    """Every stretch of every window: (score above that of no answer, text)."""
    found, own = [], [w for w, q in enumerate(examples.question) if q == question]
    lengths = {w: len(examples.input_ids[w]) - examples.head[w] - 1 for w in own}

    def context(w, piece):
        place = piece - examples.first[w]
        return min(place, lengths[w] - 1 - place) + 0.01 * lengths[w]

    for w in own:
        z = np.asarray(logits[w], np.float64)
        for begin in range(lengths[w]):
            piece = examples.first[w] + begin
            holding = [v for v in own if examples.first[v] <= piece < examples.first[v] + lengths[v]]
            if max(holding, key=lambda v: (context(v, piece), -v)) != w:
                continue
            for end in range(begin, min(begin + longest, lengths[w])):
                spans = examples.spans[question]
                text = examples.questions.questions[question].context[spans[piece][0] : spans[examples.first[w] + end][1]]
                found.append((z[examples.head[w] + begin, 0] + z[examples.head[w] + end, 1], text))
    none = min(np.asarray(logits[w], np.float64)[0].sum() for w in own)
    return [(score - none, text) for score, text in found]


@pytest.mark.parametrize("longest", [1, 3, 30])
@pytest.mark.parametrize("length", [18, 24, 200])
def test_the_best_of_all_windows(tmp_path, words, length, longest):
    examples = some(tmp_path, words, length)
    rng = np.random.default_rng(length + longest)
    for _ in range(3):
        logits = [rng.standard_normal((len(ids), 2)).astype(np.float32) for ids in examples.input_ids]
        for question, answer in enumerate(best_answers(examples, logits, longest)):
            margin, text = max(by_hand(examples, logits, question, longest))
            assert (answer.margin, answer.text) == (pytest.approx(margin), text)
            assert examples.questions.questions[question].context[answer.begin : answer.end] == answer.text


def test_right_logits_give_the_answers_themselves(tmp_path, words):
    examples = some(tmp_path, words, version="v2.0")
    logits = [np.zeros((len(ids), 2)) for ids in examples.input_ids]
    for z, (begin, end) in zip(logits, examples.labels, strict=True):
        z[begin, 0] = z[end, 1] = 5
    answers = [answer.or_none(0.0).text for answer in best_answers(examples, logits, 30)]
    assert answers == ["Zoë Brandt", "1904", "story", ""]


def test_the_threshold():
    answer = Answer("red", 3, 6, -1.5)  # no answer is better by 1.5
    assert answer.or_none(None) == answer and answer.or_none(1.5) == answer and answer.or_none(1.4).text == ""


def test_a_document_without_a_word(tmp_path, words):
    content = official()
    content["data"][0]["paragraphs"] = [{"context": " \n", "qas": [{"id": "e", "question": "Who?", "answers": []}]}]
    write(tmp_path, "dev", content)
    examples = read_windows(squad_task(), tmp_path, "dev", words, 20, 2)
    (answer,) = best_answers(examples, [np.ones((len(ids), 2)) for ids in examples.input_ids], 30)
    assert answer.text == "" and answer.margin == -np.inf
    write_answers(tmp_path, examples.questions, [answer], None)
    assert json.loads((tmp_path / "predictions.json").read_text()) == {"e": ""}


def test_what_is_written(tmp_path, words):
    examples = some(tmp_path, words, version="v2.0")
    answers = [Answer("Zoë", 0, 3, 2.0), Answer("a", 0, 1, -1.0), Answer("b", 1, 2, 0.0), Answer("c", 2, 3, -3.0)]
    paths = write_answers(tmp_path, examples.questions, answers, 0.5)
    assert [path.rpartition("/")[2] for path in paths] == ["predictions.json", "null_odds.json"]
    assert json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8")) == {"t1": "Zoë", "t2": "", "l1": "b", "l2": ""}
    assert json.loads((tmp_path / "null_odds.json").read_text()) == {"t1": -2.0, "t2": 1.0, "l1": 0.0, "l2": 3.0}


def test_one_document_is_tokenised_once(tmp_path, words):
    examples = some(tmp_path, words)
    assert examples.spans[0] is examples.spans[1] and examples.spans[0] is not examples.spans[2]
    assert encode_questions(squad_task(), examples.questions, words, 200, 2).question == [0, 1, 2]
