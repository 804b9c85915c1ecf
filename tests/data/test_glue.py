"""GLUE's files: what is written reads back for every task, official layouts read by their columns, bad rows named by file and line."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitinybert.data import glue
from minitinybert.data.glue import TASKS, Examples, custom_task, label_order, read_split, write_examples, write_predictions
from minitinybert.errors import InputError

FIELD = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=20).filter(lambda t: t.strip())


@settings(max_examples=60)
@given(st.data(), st.sampled_from(sorted(TASKS)))
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
}


@pytest.mark.parametrize("name", sorted(TASKS))
def test_official_layouts(tmp_path, name):
    split, header, row, expected = OFFICIAL[name]
    lines = [header] * bool(header) + [row]
    (tmp_path / f"{split}.tsv").write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    found = read_split(TASKS[name], tmp_path, split)
    assert (found.texts[0], found.pairs and found.pairs[0], found.labels[0]) == expected


def test_test_files_have_no_labels_and_cola_s_has_a_header(tmp_path):
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tBill sang.\n1\tSang Bill.\n")
    for name in ("cola", "sst-2"):
        found = read_split(TASKS[name], tmp_path, "test")
        assert found.texts == ["Bill sang.", "Sang Bill."] and found.labels is None


def test_qqp_s_short_rows_are_skipped(tmp_path):
    header, row = OFFICIAL["qqp"][1:3]
    (tmp_path / "train.tsv").write_text("\n".join("\t".join(r) for r in (header, row, row[:4], row)) + "\n")
    assert read_split(TASKS["qqp"], tmp_path, "train").rows == [2, 4]


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "train.tsv: the file is empty"),
        (b"sentence\tlabel\n", "no examples"),
        (b"sentence\tlabel\ngood\t1\nbad\n", "line 3: 1 columns"),
        (b"sentence\tlabel\ngood\t2\n", "line 2: label '2'; task sst-2 has 0, 1"),
        (b"sentence\tlabel\ngood\t1\n\xff\t0\n", "line 3: not UTF-8"),
        (b"text\tlabel_\nx\ty\tz\n", "label 'y'"),
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
    with pytest.raises(InputError, match="no such directory"):
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
        pyarrow = pytest.importorskip("pyarrow", reason="Parquet is read by pyarrow where it is installed")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({h: [r[h] for r in rows] for h in header}), path)
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


def test_label_orders_by_name():
    mnli = TASKS["mnli"]
    assert label_order(mnli, {0: "ENTAILMENT", 1: "neutral", 2: "contradiction"}) == [2, 0, 1]
    assert label_order(mnli, {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}) == [0, 1, 2]
    with pytest.raises(InputError, match="yes, no, perhaps"):
        label_order(mnli, {0: "yes", 1: "no", 2: "perhaps"})


def test_predictions_for_the_leaderboard(tmp_path):
    write_predictions(tmp_path / "RTE.tsv", TASKS["rte"], np.array([1, 0]))
    assert (tmp_path / "RTE.tsv").read_text() == "index\tprediction\n0\tnot_entailment\n1\tentailment\n"
    write_predictions(tmp_path / "STS-B.tsv", TASKS["sts-b"], np.array([5.4, -1.0, 2.3456]))
    assert (tmp_path / "STS-B.tsv").read_text() == "index\tprediction\n0\t5.000\n1\t0.000\n2\t2.346\n"
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_every_task_is_complete():
    assert list(TASKS) == ["cola", "sst-2", "mrpc", "sts-b", "qqp", "mnli", "qnli", "rte", "wnli"]
    assert TASKS["mnli"].dev_splits == ("dev_matched", "dev_mismatched")
    for task in TASKS.values():
        assert task.main_metric and all(metric in glue_metrics() for metric in task.metrics)


def glue_metrics():
    from minitinybert.data.metrics import METRICS

    assert glue.TASKS is TASKS
    return METRICS
