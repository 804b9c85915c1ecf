"""GLUE's files: what is written reads back for every task, official layouts read by their columns, bad rows named by file and line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitinybert.data.glue import TASKS, Examples, custom_task, label_order, read_split, write_examples, write_predictions
from minitinybert.errors import InputError

# Whatever a raw TSV can hold: quotes, blanks at the ends, nothing at all, Unicode's own line separators.
FIELD = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\t\n\r"), max_size=20)


@settings(max_examples=60)
@given(st.data(), st.sampled_from(sorted(name for name, task in TASKS.items() if "train" in task.files)))
def test_what_is_written_reads_back(tmp_path_factory, data, name):
    task, n = TASKS[name], data.draw(st.integers(1, 5))
    directory = tmp_path_factory.mktemp("glue")
    texts = data.draw(st.lists(FIELD, min_size=n, max_size=n))
    pairs = data.draw(st.lists(FIELD, min_size=n, max_size=n)) if len(task.text_columns) == 2 else None
    if task.labels is None:
        labels = np.array(data.draw(st.lists(st.floats(0, 5), min_size=n, max_size=n)))
    else:
        labels = np.array(data.draw(st.lists(st.integers(0, len(task.labels) - 1), min_size=n, max_size=n)))
    write_examples(directory / "train.tsv", task, Examples(texts, pairs, labels, list(range(n)), Path("x")))
    found = read_split(task, directory, "train")
    assert (found.texts, found.pairs, found.labels.tolist()) == (texts, pairs, labels.tolist())
    assert found.labels.dtype == (np.float64 if task.labels is None else np.int64)
    assert found.rows == [i + 1 + task.header for i in range(n)]


OFFICIAL = {
    "cola": ("train", None, ["gj04", "1", "", 'He said "yes".'], ('He said "yes".', None, 1)),
    "sst-2": ("dev", ["sentence", "label"], ["it 's charming ", "1"], ("it 's charming ", None, 1)),
    "mrpc": ("train", ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"], ["0", "7", "8", "A.", 'B "q.'], ("A.", 'B "q.', 0)),
    "sts-b": (
        "dev",
        ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score"],
        ["0", "g", "f", "y", "o", "s", "s", "A.", "B.", "2.400"],
        ("A.", "B.", 2.4),
    ),
    "qqp": ("train", ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"], ["0", "1", "2", "A?", "B?", "1"], ("A?", "B?", 1)),
    "mnli": (
        "dev_matched",
        ["index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse"]
        + ["sentence1", "sentence2", "label1", "label2", "gold_label"],
        ["0", "p", "q", "g", "(", "(", "(", "(", "A.", "B.", "neutral", "entailment", "entailment"],
        ("A.", "B.", 1),
    ),
    "qnli": ("dev", ["index", "question", "sentence", "label"], ["0", "Q?", "S.", "not_entailment"], ("Q?", "S.", 1)),
    "rte": ("train", ["index", "sentence1", "sentence2", "label"], ["0", "A.", "B.", "entailment"], ("A.", "B.", 0)),
    "wnli": ("train", ["index", "sentence1", "sentence2", "label"], ["0", "A.", "B.", "1"], ("A.", "B.", 1)),
    "ax": (
        "dev",
        ["Lexical Semantics", "Predicate-Argument Structure", "Logic", "Knowledge", "Domain", "Premise", "Hypothesis", "Label"],
        ["Lexical entailment;Factivity", "", "Negation", "", "News", "A.", "B.", "neutral"],
        ("A.", "B.", 2),
    ),
}


@pytest.mark.parametrize("name", sorted(TASKS))
def test_official_layouts(tmp_path, name):
    split, header, row, expected = OFFICIAL[name]
    lines = [header] * bool(header) + [row]
    (tmp_path / f"{split}.tsv").write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    found = read_split(TASKS[name], tmp_path, split)
    assert (found.texts[0], found.pairs and found.pairs[0], found.labels[0]) == expected


def test_the_diagnostics_are_glue_s_own_two_files(tmp_path):
    """diagnostic-full.tsv has labels, AX.tsv, under other names and in other places, has none."""
    header, row = OFFICIAL["ax"][1:3]
    with pytest.raises(InputError, match=r"no AX or test\{"):
        read_split(TASKS["ax"], tmp_path, "test")
    with pytest.raises(InputError, match="task ax has dev, test"):
        read_split(TASKS["ax"], tmp_path, "train")
    (tmp_path / "diagnostic-full.tsv").write_text("\t".join(header) + "\n" + "\t".join(row) + "\n")
    (tmp_path / "AX.tsv").write_text('index\tsentence1\tsentence2\n0\tThe cat "sat.\tIt sat.\n1\tNo.\tYes.\n')
    dev, test = (read_split(TASKS["ax"], tmp_path, split) for split in ("dev", "test"))
    assert (dev.texts, dev.pairs, dev.labels.tolist()) == (["A."], ["B."], [2])
    assert (test.texts, test.pairs, test.labels) == (['The cat "sat.', "No."], ["It sat.", "Yes."], None)


def test_test_files_have_no_labels_and_cola_s_has_a_header(tmp_path):
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tBill sang.\n1\tSang Bill.\n")
    for name in ("cola", "sst-2"):
        found = read_split(TASKS[name], tmp_path, "test")
        assert found.texts == ["Bill sang.", "Sang Bill."] and found.labels is None


def write_tsv(directory, *rows):
    (directory / "train.tsv").write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return directory


def test_cola_s_rows_have_four_columns(tmp_path):
    with pytest.raises(InputError, match="line 2: 5 columns, where 4 belong"):
        read_split(TASKS["cola"], write_tsv(tmp_path, ["gj04", "1", "", "A."], ["gj04", "1", "", "A.", "B."]), "train")


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"cola"}))
def test_columns_of_other_names_are_found_by_their_place(tmp_path, name):
    """GLUE's files in the layout of MNLI's: its train file has fewer labellers' columns than its dev files, so the label is the last."""
    split, header, row, expected = OFFICIAL[name]
    write_tsv(tmp_path, [f"other{i}" for i in range(len(header))], row)
    (tmp_path / "train.tsv").rename(tmp_path / f"{split}.tsv")
    found = read_split(TASKS[name], tmp_path, split)
    assert (found.texts[0], found.pairs and found.pairs[0], found.labels[0]) == expected


def test_a_test_file_is_read_by_names_alone_and_with_labels_where_it_has_them(tmp_path):
    (tmp_path / "test.tsv").write_text("index\ttext\n0\tgood\n")
    with pytest.raises(InputError, match="no column 'sentence'; the header has index, text"):
        read_split(TASKS["sst-2"], tmp_path, "test")
    (tmp_path / "test.tsv").write_text("sentence\tlabel\ngood\t1\nbad\t0\n")
    assert read_split(TASKS["sst-2"], tmp_path, "test").labels.tolist() == [1, 0]


def test_qqp_s_short_rows_are_skipped_and_counted(tmp_path, capsys):
    header, row = OFFICIAL["qqp"][1:3]
    write_tsv(tmp_path, header, row, row[:4], row)
    assert read_split(TASKS["qqp"], tmp_path, "train").rows == [2, 4]
    assert capsys.readouterr().err == f"warning: {tmp_path / 'train.tsv'}: 1 rows with fewer than 6 columns are left out\n"
    assert len(read_split(TASKS["qqp"], write_tsv(tmp_path, header, row, row), "train")) == 2
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match="no examples"):
        read_split(TASKS["qqp"], write_tsv(tmp_path, header, row[:4]), "train")
    with pytest.raises(InputError, match="line 2: 7 columns, where 6 belong"):
        read_split(TASKS["qqp"], write_tsv(tmp_path, header, [*row, "1"]), "train")


def test_every_row_of_a_test_file_is_an_example(tmp_path, capsys):
    """The leaderboard counts rows: none is left out, and what QQP's short rows lack is empty."""
    path, qqp = tmp_path / "test.tsv", TASKS["qqp"]
    path.write_text("id\tquestion1\tquestion2\n0\tA?\tB?\n1\tC?\n\t\t\n3\tD?\tE?\tmore\n  \n5\tF?\tG?\n\n")
    found = read_split(qqp, tmp_path, "test")
    assert found.texts == ["A?", "C?", "", "D?", "", "F?"] and found.pairs == ["B?", "", "", "E?", "", "G?"]
    assert found.rows == [2, 3, 4, 5, 6, 7] and found.labels is None
    assert capsys.readouterr().err == f"warning: {path}: 2 rows with fewer than 3 columns; what they lack is empty\n"
    path.write_text("id\tquestion1\tquestion2\tis_duplicate\n0\tA?\tB?\t1\n1\tC?\tD?\n")
    with pytest.raises(InputError, match="line 3: label ''; task qqp"):
        read_split(qqp, tmp_path, "test")
    path.write_text("id\tquestion1\tquestion2\n0\tA?\tB?\n\n2\tC?\tD?\n")
    with pytest.raises(InputError, match="test.tsv, line 3: an empty line"):
        read_split(qqp, tmp_path, "test")
    for row in ("1", " "):
        path.write_text(f"index\tsentence\n0\tgood\n{row}\n")
        with pytest.raises(InputError, match="test.tsv, line 3: 1 columns, where 2 belong"):
            read_split(TASKS["sst-2"], tmp_path, "test")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "train.tsv: the file is empty"),
        (b"sentence\tlabel\n", "no examples"),
        (b"sentence\tlabel\ngood\t1\nbad\n", "line 3: 1 columns"),
        (b"sentence\tlabel\ngood\t2\n", "line 2: label '2'; task sst-2 has 0, 1"),
        (b"sentence\tlabel\ngood\t1\n\xff\t0\n", "line 3: not UTF-8"),
        (b"text\tlabel_\nx\ty\n", "line 2: label 'y'"),
        (b"sentence\tlabel\ngood\t1\ta tab in the text\n", "line 2: 3 columns, where 2 belong"),
        (b"it is good\t1\nit is bad\t0\n", "line 1: an example"),
        (b"sentence\n", "no column 'label'"),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path, content, words):
    (tmp_path / "train.tsv").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_split(TASKS["sst-2"], tmp_path, "train")
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("score", ["high", "nan", "inf", ""])
def test_a_score_that_is_no_number(tmp_path, score):
    header, row = OFFICIAL["sts-b"][1:3]
    (tmp_path / "train.tsv").write_text("\t".join(header) + "\n" + "\t".join([*row[:-1], score]) + "\n")
    with pytest.raises(InputError, match="line 2: score"):
        read_split(TASKS["sts-b"], tmp_path, "train")


def test_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no such file or directory"):
        read_split(TASKS["rte"], tmp_path / "nowhere", "train")
    with pytest.raises(InputError, match=r"no dev\{\.tsv"):
        read_split(TASKS["rte"], tmp_path, "dev")
    with pytest.raises(InputError, match="mnli has train, dev_matched"):
        read_split(TASKS["mnli"], tmp_path, "dev")


def write_custom(path, rows):
    header = list(rows[0])
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        quoted = lambda v: '"' + str(v).replace('"', '""') + '"'
        path.write_text("\n".join([",".join(header), *(",".join(quoted(r[h]) for h in header) for r in rows)]) + "\n", encoding="utf-8")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({h: [r[h] for r in rows] for h in header}), path)
    else:
        path.write_text("\n".join(["\t".join(header), *("\t".join(str(r[h]) for h in header) for r in rows)]) + "\n", encoding="utf-8")


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_own_data_in_every_format(tmp_path, ending):
    rows = [{"id": i, "review": f'a "quoted", {i}', "stars": s} for i, s in enumerate((10, 2, 1, 10))]
    write_custom(tmp_path / f"train{ending}", rows)
    task = custom_task(tmp_path, ["review"], "stars")
    assert task.labels == ("1", "2", "10") and task.main_metric == "accuracy"
    found = read_split(task, tmp_path, "train")
    assert found.texts == [r["review"] for r in rows] and found.labels.tolist() == [2, 1, 0, 2]


def test_own_data_with_decimals_is_a_regression_and_words_are_sorted(tmp_path):
    write_custom(tmp_path / "train.csv", [{"a": "x", "b": "y", "score": s, "kind": k} for s, k in ((1.5, "no"), (2, "maybe"))])
    assert custom_task(tmp_path, ["a", "b"], "score").labels is None
    assert custom_task(tmp_path, ["a"], "kind").labels == ("maybe", "no")
    with pytest.raises(InputError, match="no column 'c'; the header has a, b, score, kind"):
        read_split(custom_task(tmp_path, ["c"], "kind"), tmp_path, "train")
    with pytest.raises(InputError, match="1 different labels"):
        custom_task(tmp_path, ["score"], "a")
    with pytest.raises(InputError, match="two for pairs"):
        custom_task(tmp_path, ["a", "b", "kind"], "score")
    assert custom_task(tmp_path, ["a"], "kind", labels=("no", "maybe")).labels == ("no", "maybe")
    assert custom_task(tmp_path, ["a"], "score", regression=False).labels == ("1.5", "2")


LABELS = [
    (["2", "10", "-1"], ("-1", "2", "10")),
    ([1.0, 0.0, 1], ("0", "1")),  # pandas' whole numbers
    (["b", "10", "2"], ("10", "2", "b")),
    (["007", "8"], ("007", "8")),
    (["²", "3"], ("3", "²")),
    ([True, False], ("False", "True")),
    (["0.5", "1e1", "2"], None),
    ([4.5, 4.0], None),
]


@pytest.mark.parametrize("values, labels", LABELS)
def test_the_labels_of_own_data(tmp_path, values, labels):
    write_custom(tmp_path / "train.jsonl", [{"t": "x", "y": value} for value in values])
    task = custom_task(tmp_path, ["t"], "y")
    assert task.labels == labels and task.main_metric == ("pearson" if labels is None else "accuracy")
    found = read_split(task, tmp_path, "train").labels.tolist()
    text = lambda value: str(int(value)) if isinstance(value, float) else str(value)
    assert found == [float(v) if labels is None else labels.index(text(v)) for v in values]


def test_whole_numbers_are_a_regression_where_asked_for(tmp_path):
    write_custom(tmp_path / "train.csv", [{"t": "x", "y": y} for y in (4, 5, 3)])
    task = custom_task(tmp_path, ["t"], "y", regression=True)
    assert task.labels is None and read_split(task, tmp_path, "train").labels.tolist() == [4, 5, 3]


@pytest.mark.parametrize(
    "rows, words",
    [
        ([("a", "x"), ("b", None)], "line 2: no label in column 'y'"),
        ([("a", "x"), ("b", " ")], "line 2: no label in column 'y'"),
        ([("a", 1.5), ("b", "none")], "line 2: 'none' in column 'y', which has numbers with decimals elsewhere"),
        ([("a", 1.5), ("b", "nan")], "line 2: no label in column 'y'; --drop-unlabelled leaves"),
        ([("a", "x"), ("b", float("nan"))], "line 2: no label in column 'y'"),
        ([("a", "x"), ("b", "-")], "line 2: no label in column 'y'"),
        ([("a", "x"), ("b", ["x", "y"])], "line 2: the label is a list, ['x', 'y']; one label a text is needed"),
        ([("a", "x"), ("b", [])], "line 2: the label is a list, []; one label a text is needed"),
        ([("a", "x"), ("b", {"x": 1})], "line 2: the label is a dict, {'x': 1}; one label a text is needed"),
        ([("a", "x"), ("b", "['x', 'y']")], "line 2: the label is a list, ['x', 'y']; one label a text is needed"),
        ([("a", "x"), (float("nan"), "y")], "line 2: the text is nan; a string is needed"),
        ([("a", "x"), ({"b": 1}, "y")], "line 2: the text is a dict, {'b': 1}; a string is needed"),
        ([("a", "x"), (None, "y")], "line 2: the text is None"),
        ([("a", "x"), (["b"], "y")], "line 2: the text is a list, ['b']; a string is needed"),
    ],
)
def test_own_rows_without_a_text_or_label(tmp_path, rows, words):
    write_custom(tmp_path / "train.jsonl", [{"t": t, "y": y} for t, y in rows])
    with pytest.raises(InputError) as error:
        read_split(custom_task(tmp_path, ["t"], "y"), tmp_path, "train")
    assert words in str(error.value)


ENDINGS = [".tsv", ".csv", ".jsonl", ".parquet"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_without_a_gold_label_are_refused_or_left_out_and_counted(tmp_path, capsys, ending):
    rows = [{"t": f"text {i}", "y": y} for i, y in enumerate(("b", "-", "a", " ", "b", "NaN"))]
    write_custom(tmp_path / f"train{ending}", rows)
    line = 2 if ending in (".jsonl", ".parquet") else 3
    with pytest.raises(InputError, match=f"train{ending}, line {line}: no label in column 'y'; --drop-unlabelled leaves rows"):
        custom_task(tmp_path, ["t"], "y")
    task = custom_task(tmp_path, ["t"], "y", unlabelled="drop")
    assert capsys.readouterr().err == f"{tmp_path / f'train{ending}'}: 2 labels: 'a' 1, 'b' 2\n"
    found = read_split(task, tmp_path, "train")
    assert (found.texts, found.labels.tolist()) == (["text 0", "text 2", "text 4"], [1, 0, 1])
    assert found.rows == [line - 1, line + 1, line + 3]
    assert "3 of 6 rows have no gold label and are left out" in capsys.readouterr().err
    named = custom_task(tmp_path, ["t"], "y", labels=["a", "b", "-"], unlabelled="drop")
    assert read_split(named, tmp_path, "train").labels.tolist() == [1, 2, 0, 1]  # what is named is a label


def test_missing_values_of_json_and_parquet_are_no_gold_label(tmp_path):
    (tmp_path / "train.jsonl").write_text(
        '{"t": "a", "y": 1.5}\n{"t": null, "y": NaN}\n{"t": "c"}\n{"t": "d", "y": null}\n{"t": "e", "y": 2}\n'
    )
    table = pyarrow.table({"t": ["a", None, "c", "d", "e"], "y": [1.5, float("nan"), None, None, 2]})
    pyarrow.parquet.write_table(table, tmp_path / "dev.parquet")
    task = custom_task(tmp_path, ["t"], "y", unlabelled="drop")
    for split in ("train", "dev"):
        found = read_split(task, tmp_path, split)  # the row without a text has no label either
        assert (found.texts, found.labels.tolist(), task.labels) == (["a", "e"], [1.5, 2.0], None)


def test_glue_s_rows_without_a_gold_label(tmp_path):
    """SNLI's `-`, and the hub's −1 for the same."""
    mnli, drop = TASKS["mnli"], replace(TASKS["mnli"], unlabelled="drop")
    for label in ("-", -1, None):
        rows = [{"premise": "A.", "hypothesis": f"{i}", "label": y} for i, y in enumerate((0, label, 2))]
        write_custom(tmp_path / "train.jsonl", rows)
        with pytest.raises(
            InputError, match="line 2: label '.*'; task mnli has .*; --drop-unlabelled leaves rows without a gold label out"
        ):
            read_split(mnli, tmp_path, "train")
        assert read_split(drop, tmp_path, "train").pairs == ["0", "2"]
    write_custom(tmp_path / "train.jsonl", [{"premise": "A.", "hypothesis": "B.", "label": -1}])
    with pytest.raises(InputError, match="no examples in it"):
        read_split(drop, tmp_path, "train")
    write_custom(tmp_path / "train.jsonl", [{"premise": "A.", "hypothesis": "B.", "label": "maybe"}])
    with pytest.raises(InputError, match="label 'maybe'; task mnli has contradiction, entailment, neutral$"):
        read_split(drop, tmp_path, "train")


def test_a_test_file_s_labels_need_not_be_read(tmp_path):
    write_custom(
        tmp_path / "test_matched.jsonl", [{"premise": f"{i}", "hypothesis": "B.", "label": y} for i, y in enumerate((0, "-", ["x"]))]
    )
    found = read_split(replace(TASKS["mnli"], unlabelled="ignore"), tmp_path, "test_matched")
    assert found.texts == ["0", "1", "2"] and found.labels is None


@pytest.mark.parametrize(
    "values", [["1", "0", "1"], [1, 0, 1], [1.0, 0.0, 1.0], ["1.0", "0.00", "1"], [" 1", "0 ", "1"], [b"1", b"0", b"1"]]
)
@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".csv"])
def test_a_number_is_one_label_however_it_is_written(tmp_path, ending, values):
    if isinstance(values[0], bytes) and ending != ".parquet":
        return
    write_custom(tmp_path / f"train{ending}", [{"sentence": "x", "label": value} for value in values])
    for task in (TASKS["sst-2"], custom_task(tmp_path, ["sentence"], "label")):
        assert task.labels == ("0", "1") and read_split(task, tmp_path, "train").labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("ending", ENDINGS)
def test_true_and_false_are_labels_of_their_own(tmp_path, ending):
    """As pandas writes them, in each format alike."""
    write_custom(tmp_path / f"train{ending}", [{"t": "x", "y": value} for value in (True, False, True)])
    task = custom_task(tmp_path, ["t"], "y")
    assert task.labels == ("False", "True") and read_split(task, tmp_path, "train").labels.tolist() == [1, 0, 1]


def test_blank_texts_are_told_and_bytes_are_text(tmp_path, capsys):
    rows = [{"a": a, "b": b, "y": y} for a, b, y in (("x", "", 0), (" ", "y", 1), ("x", "y", 1))]
    for ending in ENDINGS:
        directory = tmp_path / ending[1:]
        directory.mkdir()
        write_custom(directory / f"train{ending}", rows)
        task = custom_task(directory, ["a", "b"], "y")
        capsys.readouterr()
        found = read_split(task, directory, "train")
        assert (found.texts, found.pairs) == (["x", " ", "x"], ["", "y", "y"])
        assert f"a text is blank in 2 of 3 rows, line {found.rows[0]} the first" in capsys.readouterr().err
    write_custom(tmp_path / "train.parquet", [{"sentence": "é".encode(), "label": 1}])
    assert read_split(TASKS["sst-2"], tmp_path, "train").texts == ["é"]
    write_custom(tmp_path / "train.parquet", [{"sentence": b"\xe9", "label": 1}])
    with pytest.raises(InputError, match="line 1: the text is .*utf-8.*; a string is needed"):
        read_split(TASKS["sst-2"], tmp_path, "train")


def test_half_a_surrogate_pair_is_no_text(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"sentence": "a \\ud83d\\ude00", "label": 1}\n')
    assert read_split(TASKS["sst-2"], tmp_path, "train").texts == ["a 😀"]
    (tmp_path / "train.jsonl").write_text('{"sentence": "a\\ud83dz", "label": 1}\n')
    with pytest.raises(InputError, match="train.jsonl, line 1: .*half a surrogate pair"):
        read_split(TASKS["sst-2"], tmp_path, "train")


def test_many_labels_are_told_in_part(tmp_path, capsys):
    write_custom(tmp_path / "train.csv", [{"t": "x", "y": f"l{i:03d}"} for i in range(100)])
    custom_task(tmp_path, ["t"], "y")
    told = capsys.readouterr().err
    assert "100 labels: 'l000' 1, " in told and "'l029' 1 and 70 more" in told and "l030" not in told


def test_augmented_own_data_reads_back(tmp_path):
    write_custom(tmp_path / "train.csv", [{"a": 'x "y"', "b": "two\nlines", "kind": k} for k in ("no", "maybe")])
    task = custom_task(tmp_path, ["a", "b"], "kind")
    examples = read_split(task, tmp_path, "train")
    (tmp_path / "more").mkdir()
    write_examples(tmp_path / "more" / "train.tsv", task, examples)
    found = read_split(task, tmp_path / "more", "train")
    assert found.texts == examples.texts and found.pairs == ["two lines"] * 2 and found.labels.tolist() == examples.labels.tolist()


def test_label_orders_by_name():
    mnli = TASKS["mnli"]
    assert label_order(mnli, {0: "ENTAILMENT", 1: "neutral", 2: "contradiction"}) == [2, 0, 1]
    assert label_order(mnli, {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}) == [0, 1, 2]
    for names in (["yes", "No", "perhaps"], ["LABEL_0", "LABEL_1"], ["LABEL_1", "LABEL_0", "LABEL_2"], ["neutral"] * 3):
        with pytest.raises(InputError, match=f"{', '.join(names)}, those of task mnli contradiction, entailment, neutral"):
            label_order(mnli, dict(enumerate(names)))


@pytest.mark.parametrize(
    "labels, names, order",
    [
        ("Pp", "Pp", [0, 1]),
        ("Pp", "pP", [1, 0]),
        ("Ppq", "qpP", [2, 1, 0]),
        ("Pq", "Qp", [1, 0]),
        ("Pp", "PP", None),
        ("Pp", "pp", None),
        ("Ppq", "PpQ", None),  # apart from case, P is p
        ("pq", "Pp", None),
        ("PP", "PP", None),
    ],
)
def test_labels_that_differ_in_case_alone_are_different_labels(tmp_path, labels, names, order):
    task = custom_task(tmp_path, ["text"], "kind", labels=list(labels))
    if order is not None:
        assert label_order(task, dict(enumerate(names))) == order
        return
    with pytest.raises(InputError, match="the model's labels are"):
        label_order(task, dict(enumerate(names)))


HUB_NAMES = {
    "sst-2": ["negative", "positive"],
    "mrpc": ["not_equivalent", "equivalent"],
    "qqp": ["not_duplicate", "duplicate"],
    "cola": ["unacceptable", "acceptable"],
    "wnli": ["not_entailment", "entailment"],
    "rte": ["entailment", "not_entailment"],
    "qnli": ["entailment", "not_entailment"],
}


@pytest.mark.parametrize("name", HUB_NAMES)
def test_label_orders_by_the_hub_s_names(name):
    task, names = TASKS[name], HUB_NAMES[name]
    assert label_order(task, dict(enumerate(names))) == [0, 1]
    assert label_order(task, dict(enumerate([word.upper() for word in names[::-1]]))) == [1, 0]
    assert label_order(task, dict(enumerate(task.labels[::-1]))) == [1, 0]
    with pytest.raises(InputError, match="the model's labels are"):
        label_order(task, {0: names[0], 1: "maybe"})


# What the hub's files say: columns, a row, and the row as (text, pair, class or number).
HUB = {
    "cola": ({"sentence": "A.", "label": 1}, ("A.", None, 1)),
    "sst-2": ({"sentence": "A.", "label": 0}, ("A.", None, 0)),
    "mrpc": ({"sentence1": "A.", "sentence2": "B.", "label": 1}, ("A.", "B.", 1)),
    "sts-b": ({"sentence1": "A.", "sentence2": "B.", "label": 2.5}, ("A.", "B.", 2.5)),
    "qqp": ({"question1": "A?", "question2": "B?", "label": 1}, ("A?", "B?", 1)),
    "mnli": ({"premise": "A.", "hypothesis": "B.", "label": 2}, ("A.", "B.", 0)),
    "qnli": ({"question": "A?", "sentence": "B.", "label": 1}, ("A?", "B.", 1)),
    "rte": ({"sentence1": "A.", "sentence2": "B.", "label": 0}, ("A.", "B.", 0)),
    "wnli": ({"sentence1": "A.", "sentence2": "B.", "label": 1}, ("A.", "B.", 1)),
    "ax": ({"premise": "A.", "hypothesis": "B.", "label": 1}, ("A.", "B.", 2)),
}


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_hub_s_files(tmp_path, name, ending):
    (row, expected), task = HUB[name], TASKS[name]
    first = next(iter(task.files))
    write_custom(tmp_path / f"{first}{ending}", [{"idx": 7, **row}])
    found = read_split(task, tmp_path, first)
    assert (found.texts[0], found.pairs and found.pairs[0], found.labels[0]) == expected
    unknown = type(row["label"])(-1)
    for split in task.test_splits:
        write_custom(tmp_path / f"{split}{ending}", [{"idx": i, **row, "label": unknown} for i in range(2)])
        found = read_split(task, tmp_path, split)
        assert found.texts == [expected[0]] * 2 and found.labels is None


def test_the_hub_s_numbers_are_its_order_of_mnli_s_labels(tmp_path):
    hub = lambda label: {"premise": "A.", "hypothesis": "B.", "label": label, "idx": 0}
    write_custom(tmp_path / "train.jsonl", [hub(label) for label in (0, 1, 2, 2.0, "neutral")])
    mnli = TASKS["mnli"]
    assert [mnli.labels[i] for i in read_split(mnli, tmp_path, "train").labels] == [
        "entailment", "neutral", "contradiction", "contradiction", "neutral",
    ]  # fmt: skip
    official = lambda label: {"sentence1": "A.", "sentence2": "B.", "gold_label": label}
    mixed = lambda label: {"premise": "A.", "hypothesis": "B.", "gold_label": label}
    for row in (hub(3), hub(-1), hub(True), hub("2"), official(2), mixed(2)):  # numbers mean something in the hub's own files alone
        write_custom(tmp_path / "train.jsonl", [row])
        with pytest.raises(InputError, match="line 1: label '.*'; task mnli has contradiction, entailment, neutral"):
            read_split(mnli, tmp_path, "train")


def test_the_hub_s_names_in_other_formats_and_the_official_ones_first(tmp_path):
    write_custom(tmp_path / "train.csv", [{"premise": "A.", "hypothesis": "B.", "label": "neutral", "idx": 0}])
    found = read_split(TASKS["mnli"], tmp_path, "train")
    assert (found.texts, found.pairs, found.labels.tolist()) == (["A."], ["B."], [2])
    write_custom(tmp_path / "train.csv", [{"premise": "A.", "hypothesis": "B.", "label": 2, "idx": 0}])
    with pytest.raises(InputError, match="label '2'; task mnli"):  # text has no numbers
        read_split(TASKS["mnli"], tmp_path, "train")
    write_custom(tmp_path / "dev.tsv", [{"idx": 0, "label": "1", "sentence1": "A.", "sentence2": "B."}])  # not where MRPC's own stand
    assert read_split(TASKS["mrpc"], tmp_path, "dev").pairs == ["B."]
    both = {"label": 0, "sentence1": "no", "sentence2": "no", "#1 String": "A.", "#2 String": "B.", "Quality": 1}
    write_custom(tmp_path / "dev.tsv", [both])
    found = read_split(TASKS["mrpc"], tmp_path, "dev")
    assert (found.texts, found.pairs, found.labels.tolist()) == (["A."], ["B."], [1])
    write_custom(tmp_path / "test.csv", [{"sentence1": "A.", "text": "B."}])
    with pytest.raises(InputError, match="no column '#2 String' or 'sentence2'; the header has sentence1, text"):
        read_split(TASKS["mrpc"], tmp_path, "test")


def test_minus_one_is_no_label_only_where_a_test_file_says_nothing_else(tmp_path):
    write_custom(tmp_path / "test.jsonl", [{"sentence": "A.", "label": label} for label in (1, -1)])
    with pytest.raises(InputError, match="line 2: label '-1'; task sst-2"):
        read_split(TASKS["sst-2"], tmp_path, "test")
    write_custom(tmp_path / "dev.jsonl", [{"sentence": "A.", "label": -1}])
    with pytest.raises(InputError, match="line 1: label '-1'; task sst-2"):
        read_split(TASKS["sst-2"], tmp_path, "dev")
    own = custom_task(tmp_path, ["sentence"], "label", labels=["-1", "1"])
    assert read_split(own, tmp_path, "test").labels.tolist() == [1, 0]
    write_custom(tmp_path / "test.jsonl", [{"sentence": "A.", "label": -1}])
    assert read_split(own, tmp_path, "test").labels.tolist() == [0]


def test_predictions_for_the_leaderboard(tmp_path):
    write_predictions(tmp_path / "RTE.tsv", TASKS["rte"], np.array([1, 0]))
    assert (tmp_path / "RTE.tsv").read_text() == "index\tprediction\n0\tnot_entailment\n1\tentailment\n"
    write_predictions(tmp_path / "STS-B.tsv", TASKS["sts-b"], np.array([5.4, -1.0, 2.3456]))
    assert (tmp_path / "STS-B.tsv").read_text() == "index\tprediction\n0\t5.000\n1\t0.000\n2\t2.346\n"
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_every_task_is_complete():
    assert list(TASKS) == ["cola", "sst-2", "mrpc", "sts-b", "qqp", "mnli", "qnli", "rte", "wnli", "ax"]
    assert TASKS["mnli"].dev_splits == ("dev_matched", "dev_mismatched")
    for task in TASKS.values():
        assert task.main_metric == task.metrics[0] and task.leaderboard and len(task.text_columns) in (1, 2)


def test_two_files_of_one_split_are_not_chosen_between(tmp_path):
    for name in ("train.tsv", "train.csv"):
        (tmp_path / name).write_text("sentence\tlabel\ngood\t1\n")
    with pytest.raises(InputError, match="train.tsv and train.csv; keep the one"):
        read_split(TASKS["sst-2"], tmp_path, "train")


def test_a_label_of_thousands_of_digits_is_text(tmp_path):
    """int() refuses more than 4,300 of them."""
    long = "9" * 5000
    (tmp_path / "train.tsv").write_text(f"text\tlabel\na\t{long}\nb\t10\nc\t9\n")
    assert custom_task(tmp_path, ["text"], "label").labels == ("10", "9", long)
    (tmp_path / "train.tsv").write_text("text\tlabel\na\t-1\nb\t10\nc\t9\n")
    assert custom_task(tmp_path, ["text"], "label").labels == ("-1", "9", "10")
