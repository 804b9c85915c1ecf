"""What a run leaves in its directory: what one wants to share, and what only --resume needs.

    out/config.json, model.safetensors, tokenizer, README.md, task.json   the model
    out/metrics.jsonl, run.json                                            how it came about: losses; settings, and that it has ended
    out/checkpoint/                                                        the state to go on from, and a tokenised corpus
    out/intermediate/, out/grid/                                           models on the way

When the run has ended the last two go away but for metrics.jsonl and run.json, with which --resume
still knows that there is nothing to do, and whether it is asked for the same run; and for W_e and
W_h, maps.safetensors, which a report shows. A model on the way
that was asked for by itself (`--stage intermediate`) has a task.json, and stays.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import save_file

from ..errors import InputError
from ..files import read_json, replacing, write_json

STATE = "checkpoint"
MAPS = "maps.safetensors"
_KEPT = ("metrics.jsonl", "run.json", MAPS)  # of a model on the way
_ON_THE_WAY = ("intermediate", "grid")


def state_file(out: Path) -> Path:
    return Path(out) / STATE / "last.safetensors"


def corpus_of(out: Path) -> Path:
    """Where a run keeps its text, tokenised."""
    return Path(out) / STATE / "corpus"


def note_end(out: Path, settings: dict[str, Any], step: int, best: float | None) -> None:
    """That the run has ended: written after all that it leaves, and before anything goes away."""
    write_json(Path(out) / "run.json", {"step": step, "best": best, "settings": settings})


def keep_maps(place: Path) -> None:
    """Write W_e and W_h of a model on the way to a file of their own, which stays."""
    with safe_open(place / "model.safetensors", "numpy") as file:
        maps = {name: file.get_tensor(name) for name in file.keys() if name.startswith("fit_dense")}  # noqa: SIM118
    if maps:
        with replacing(place / MAPS) as beside:
            save_file(maps, beside)


def ended(out: Path) -> dict[str, Any] | None:
    """What `note_end` wrote; None where the run has not ended. InputError for something else."""
    path = Path(out) / "run.json"
    if not path.is_file():
        return None
    raw = read_json(path)
    best = raw.get("best")
    fits = type(raw.get("step")) is int and isinstance(raw.get("settings"), dict) and (best is None or type(best) in (int, float))
    if not fits:
        raise InputError(f"{path}: not what a run left there; choose a new --out")
    return raw


def superfluous(out: Path) -> Iterator[Path]:
    """Of a run that has ended, what only --resume or another step would need. The weights of models
    on the way come before the rest of them: without these, nobody takes them for whole."""
    out = Path(out)
    if (out / STATE).is_dir():
        yield out / STATE
    for name in _ON_THE_WAY:
        for place in (out / name, *sorted((out / name).glob("*/"))):
            if (place / "run.json").is_file() and not (place / "task.json").exists():
                gone = [path for path in place.iterdir() if path.name not in _KEPT]
                yield from sorted(gone, key=lambda path: (path.name != "model.safetensors", path.name))


def drop(out: Path) -> int:
    """Remove that; returns how many bytes it took. Nothing goes of a run that has not ended."""
    if ended(out) is None:
        return 0
    freed = 0
    for path in superfluous(out):
        freed += sum(part.stat().st_size for part in (path, *path.rglob("*")) if part.is_file() and not part.is_symlink())
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    return freed
