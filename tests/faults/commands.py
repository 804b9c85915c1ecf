"""The commands that write, at sizes of a second or less, for faults to be tried on: inputs, the command lines, and the trees that
they leave."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

GOOD, BAD = ["good", "fine", "great"], ["bad", "awful", "poor"]
REST = ["film", "plot", "actor", "scene", "the", "a", "is", "was", "very", "movies"]
WORDS = [*GOOD, *BAD, *REST, *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]


class Command(NamedTuple):
    """argv: what follows `minitinybert`, the inputs' directory as {}. again: what the second call has more, which goes on with the
    first. spared: what a run that finds no room for it does without, and is the same where it is there."""

    argv: tuple[str, ...]
    again: tuple[str, ...] = ("--resume",)
    spared: str | None = None

    def line(self, inputs: Path, again: bool = False) -> list[str]:
        return [part.replace("{}", str(inputs)) for part in (*self.argv, *(self.again if again else ()))]


_TASK = ("--task", "sst-2", "--data", "{}/data", "--max-length", "16")
_STEPS = ("--threads", "1", "--log-every", "2", "--save-every", "2")
_CORPUS = ("--corpus", "{}/corpus.txt", "--max-length", "16")
COMMANDS = {
    "finetune": Command(("finetune", "--model", "{}/model", *_TASK, "--out", "out", "--epochs", "2", "--batch-size", "16", *_STEPS)),
    "distill-general": Command(
        ("distill", "general", "--teacher", "{}/model", "--student", "1L-8D-2H-16F", *_CORPUS, "--out", "out", "--epochs", "1",
         "--batch-size", "16", *_STEPS)
    ),
    "distill-task": Command(
        ("distill", "task", "--teacher", "{}/teacher", "--student", "1L-8D-2H-16F", *_TASK, "--out", "out", "--intermediate-epochs", "2",
         "--epochs", "2", "--batch-size", "32", *_STEPS)
    ),
    "distill-shared": Command(
        ("distill", "task", "--teacher", "{}/teacher", "--student", "1L-8D-2H-16F", *_TASK, "--out", "out", "--stage", "intermediate",
         "--intermediate-epochs", "2", "--batch-size", "32", "--teacher-cache", "answers", *_STEPS),
        spared="answers",
    ),
    "pretrain": Command(
        ("pretrain", "--model", "1L-8D-2H-16F", "--train-vocabulary", "60", *_CORPUS, "--out", "out", "--epochs", "1", "--batch-size", "16",
         *_STEPS)
    ),
    "augment": Command(
        ("augment", "--mlm", "{}/mlm", "--vectors", "{}/vectors.txt", "--task", "sst-2", "--data", "{}/data", "--out", "out",
         "--copies", "1", "--provenance", "--processes", "1")
    ),
    "ablate": Command(
        ("ablate", "--teacher", "{}/teacher", "--student", "1L-8D-2H-16F", *_TASK, "--out", "out", "--seeds", "1",
         "--variants", "without-attn", "--intermediate-epochs", "1", "--epochs", "1", "--batch-size", "64", "--threads", "1")
    ),
    "convert": Command(("convert", "{}/model", "out"), ("--overwrite",)),
    "predict": Command(("predict", "--model", "{}/teacher", *_TASK, "--out", "out", "--threads", "1"), ()),
}  # fmt: skip


def make_inputs(directory: Path) -> None:
    """A model, a masked language model, a teacher, a task's files, a corpus and word vectors."""
    from minitinybert.commands.cli import main
    from minitinybert.model.bert import Bert
    from minitinybert.model.config import Config

    directory.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (directory / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    config = Config(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=32
    )
    for name, head in (("model", "none"), ("mlm", "mlm")):
        fresh = Bert.new(Config(**{**config.__dict__, "head": head}), 3)
        fresh.tokenizer_files = {"vocab.txt": directory / "vocab.txt"}
        fresh.save(directory / name)
    rng = np.random.default_rng(0)
    (directory / "data").mkdir()
    for split, count in (("train", 160), ("dev", 40), ("test", 40)):
        rows = []
        for row in range(count):
            label = int(rng.integers(2))
            text = list(rng.choice(REST, rng.integers(1, 6)))
            text.insert(int(rng.integers(len(text) + 1)), str(rng.choice((BAD, GOOD)[label])))
            rows.append(f"{row}\t{' '.join(text)}" if split == "test" else f"{' '.join(text)}\t{label}")
        header = "index\tsentence" if split == "test" else "sentence\tlabel"
        (directory / "data" / f"{split}.tsv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    sentences = [" ".join(rng.choice([*GOOD, *BAD, *REST], rng.integers(3, 9))) + (".\n" if i % 6 else ".\n\n") for i in range(80)]
    (directory / "corpus.txt").write_text("".join(sentences), encoding="utf-8")
    lines = (f"{word} {' '.join(f'{x:.3f}' for x in rng.normal(size=4))}\n" for word in [*GOOD, *BAD, *REST])
    (directory / "vectors.txt").write_text("".join(lines), encoding="utf-8")
    task = ["--task", "sst-2", "--data", str(directory / "data"), "--max-length", "16", "--threads", "1"]
    teacher = ["--model", str(directory / "model"), "--out", str(directory / "teacher"), "--epochs", "12", "--lr", "3e-3"]
    assert main(["finetune", *teacher, *task]) == 0


def tree(directory: Path) -> dict[str, bytes | None]:
    """{path: bytes, None for a directory} of all there is, without the seconds in metrics.jsonl."""
    found: dict[str, bytes | None] = {}
    for path in sorted(directory.rglob("*")):
        content = None if path.is_dir() else path.read_bytes()
        if path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in (content or b"").splitlines()]
            content = json.dumps([{name: value for name, value in row.items() if name != "seconds"} for row in rows]).encode()
        found[str(path.relative_to(directory))] = content
    return found


def differences(one: dict[str, bytes | None], other: dict[str, bytes | None], spared: str | None = None) -> list[str]:
    """spared: a directory that `other` may be without."""
    paths = {path for path in one if path in other or spared is None or not f"{path}/".startswith(f"{spared}/")} | set(other)
    return [f"{path}: {_of(one, path)} and {_of(other, path)}" for path in sorted(paths) if _of(one, path) != _of(other, path)]


def _of(found: dict[str, bytes | None], path: str) -> str:
    if path not in found:
        return "not there"
    content = found[path]
    return "a directory" if content is None else f"{len(content)} bytes {hash(content):x}"
