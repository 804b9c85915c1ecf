"""Words with labels: CoNLL's columns, Universal Dependencies', lists in JSON lines and Parquet; first pieces; sentences too long."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from small_mlm import tokenizer

from minitinybert.data.tagging import encode_words, read_tagged, read_words, tagging_task, write_tags
from minitinybert.errors import InputError

NER = "-DOCSTART- -X- O O\n\nthe DT B-NP O\nfilm NN I-NP B-ART\n# NN I-NP I-ART\n\n\nit PRP B-NP O\n"
UD = (
    "# sent_id = 1\n# text = it's a film\n1-2\tit's\t_\t_\t_\n1\tit\tit\tPRON\tPRP\n2\t's\tbe\tAUX\tVBZ\n3\ta\ta\tDET\tDT\n"
    "4\tfilm\tfilm\tNOUN\tNN\n4.1\tgone\t_\tVERB\t_\n\n1\tshe\tshe\tPRON\tPRP\n"
)


def lay(directory, ending=".conll", **splits):
    for split, text in splits.items():
        (directory / f"{split}{ending}").write_text(text, encoding="utf-8")
    return directory


def test_conll_columns(tmp_path):
    task = tagging_task(lay(tmp_path, train=NER))
    assert task.labels == ("O", "B-ART", "I-ART") and task.metrics == ("f1", "precision", "recall", "accuracy")
    tagged = read_tagged(task, tmp_path, "train")
    assert tagged.words == [["the", "film", "#"], ["it"]] and tagged.lines == [3, 8]
    assert tagged.tags == [["O", "B-ART", "I-ART"], ["O"]]


def test_another_column_by_its_number(tmp_path):
    task = tagging_task(lay(tmp_path, train=NER), label_column="2")
    assert task.labels == ("DT", "NN", "PRP") and task.metrics == ("accuracy",)
    assert read_tagged(task, tmp_path, "train").tags == [["DT", "NN", "NN"], ["PRP"]]


def test_tabs_divide_where_there_are_some(tmp_path):
    task = tagging_task(lay(tmp_path, ".tsv", train="New York\tB-LOC\nis\tO\n"))
    assert read_tagged(task, tmp_path, "train").words == [["New York", "is"]]


def test_universal_dependencies(tmp_path):
    task = tagging_task(lay(tmp_path, ".conllu", train=UD))
    tagged = read_tagged(task, tmp_path, "train")
    assert tagged.words == [["it", "'s", "a", "film"], ["she"]] and tagged.tags == [["PRON", "AUX", "DET", "NOUN"], ["PRON"]]
    assert tagging_task(tmp_path, label_column="5").labels == ("DT", "NN", "PRP", "VBZ")


def test_lists_in_json_lines_and_parquet(tmp_path):
    rows = [{"tokens": ["it", "is"], "tags": ["O", "B-X"], "id": 1}, {"tokens": ["film"], "tags": ["O"]}]
    lay(tmp_path, ".jsonl", train="\n".join(json.dumps(row) for row in rows) + "\n")
    task = tagging_task(tmp_path)
    tagged = read_tagged(task, tmp_path, "train")
    assert tagged.words == [["it", "is"], ["film"]] and tagged.tags == [["O", "B-X"], ["O"]]
    hub = [{"tokens": row["tokens"], "ner_tags": [0, 2][: len(row["tokens"])]} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(hub), tmp_path / "dev.parquet")
    numbered = tagging_task(tmp_path, label_column="ner_tags", labels=["O", "B-A", "B-B"])
    assert read_tagged(numbered, tmp_path, "dev").tags == [["O", "B-B"], ["O"]]  # a number counts the labels that are given


@pytest.mark.parametrize(
    "ending, text, message",
    [
        (".conll", "a X\nb\n", "line 2: 'b' has no label"),
        (".conll", "a\nb\n", "line 1: words without labels"),
        (".conll", "a X\n\nb\n", "line 3: words without labels"),
        (".conll", "\n\n", "no sentences in it"),
        (".conll", "a X\nb X\n", "1 different labels; at least two are needed"),
        (".conllu", "1\n", "line 1: 1 columns; the word is looked for in column 2"),
        (".jsonl", '{"tokens": ["a", "b"], "tags": ["X"]}\n', "line 1: 2 words, but 1 labels"),
        (".jsonl", '{"tokens": "a b", "tags": ["X"]}\n', "line 1: tokens is 'a b'; a list is needed"),
        (".jsonl", '{"tokens": [], "tags": []}\n', r"line 1: tokens is \[\]; a list is needed"),
        (".jsonl", '{"words": ["a"], "tags": ["X"]}\n', "no column 'tokens'; the rows have words, tags"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, ending, text, message):
    with pytest.raises(InputError, match=f"train{ending}.*{message}"):
        tagging_task(lay(tmp_path, ending, train=text))


def test_columns_of_conll_have_no_names(tmp_path):
    with pytest.raises(InputError, match="its columns have no names; give the number of 'ner', counted from 1"):
        tagging_task(lay(tmp_path, train=NER), label_column="ner")


def test_a_test_file_may_have_no_labels(tmp_path):
    task = tagging_task(lay(tmp_path, train=NER, test="it\nis\n\nshe\n"))
    assert read_tagged(task, tmp_path, "test").tags is None
    lay(tmp_path, test="it\n\nshe O\n")
    with pytest.raises(InputError, match="line 3: words with labels, where those before have none"):
        read_tagged(task, tmp_path, "test")


def test_what_is_written_is_read_back(tmp_path):
    words, tags = [["a", "film"], ["she"]], [["O", "B-X"], ["O"]]
    write_tags(tmp_path / "train.conll", words, tags)
    tagged = read_tagged(tagging_task(tmp_path), tmp_path, "train")
    assert (tagged.words, tagged.tags) == (words, tags)


# ------------------------------------------------------------------------------------------------------------------- encoding


def pieces(pieces_of, ids):
    return [pieces_of.id_to_token(int(i)) for i in ids]


def test_a_word_is_asked_for_at_its_first_piece(tmp_path):
    words = tokenizer(tmp_path)
    examples = encode_words([["Walk", "the", "\x00", "it's"], ["film"]], words, 20, [[1, 2, 0, 1], [2]])
    spelt = pieces(words, examples.input_ids[0])
    assert spelt == ["[CLS]", "w", "##a", "##l", "##k", "the", "[UNK]", "it", "'", "s", "[SEP]"]  # a word of nothing is unknown
    assert examples.places[0].tolist() == [1, 5, 6, 7] and examples.classes[0].tolist() == [1, 2, 0, 1]
    batch = examples.batch(np.array([0, 1]))
    assert batch.sentences.tolist() == [1, 0]  # the shorter one first
    assert batch.masked.rows.tolist() == [1, 4, 8, 9, 10] and batch.masked.labels.tolist() == [2, 1, 2, 0, 1]
    assert batch.masked.ends.tolist() == [1, 5] and batch.totals.masked == 5
    assert [batch.input_ids[row] for row in batch.masked.rows] == [examples.input_ids[1][1], *examples.input_ids[0][[1, 5, 6, 7]]]


def test_transformers_tokenizer_gives_the_same_pieces(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = tokenizer(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words.tokenizer, cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]", pad_token="[PAD]"
    )
    sentence = ["Acting", "it's", "中中", "the", "plot."]
    encoded = theirs(sentence, is_split_into_words=True)
    ours = encode_words([sentence], words, 50)
    assert ours.input_ids[0].tolist() == encoded["input_ids"]
    numbers = encoded.word_ids()
    assert ours.places[0].tolist() == [numbers.index(i) for i in range(len(sentence))]


def test_a_long_sentence_is_cut_between_words(tmp_path):
    words = tokenizer(tmp_path)
    sentence = ["walking", "the", "film", "abcdefghij", "it"]  # 5, 1, 1, 10 and 1 pieces
    examples = encode_words([["it"], sentence], words, 8)
    spelt = [pieces(words, ids)[1:-1] for ids in examples.input_ids]
    assert spelt[1:] == [["w", "##a", "##l", "##k", "##ing", "the"], ["film"], ["a", *(f"##{c}" for c in "bcdef")], ["it"]]
    assert all(len(ids) <= 8 for ids in examples.input_ids) and examples.sentence == [0, 1, 1, 1, 1]
    answers = [np.arange(len(own)) + 10 * i for i, own in enumerate(examples.places)]
    assert [own.tolist() for own in examples.by_sentence(answers)] == [[0], [10, 11, 20, 30, 40]]


def test_labels_that_the_task_does_not_have(tmp_path, capsys):
    task = tagging_task(lay(tmp_path, train=NER, dev="she B-NEW\n"))
    examples = read_words(task, tmp_path, "dev", tokenizer(tmp_path / "words"), 20, 2)
    assert examples.tags == [["B-NEW"]] and "B-NEW" in capsys.readouterr().err
    lay(tmp_path, train=NER + "\nshe B-NEW\n")
    with pytest.raises(InputError, match="begins on line 10: label 'B-NEW'; the task has O, B-ART, I-ART"):
        read_words(task, tmp_path, "train", tokenizer(tmp_path / "words"), 20, 2)
