"""`minitinybert clean`: of runs that have ended, what only --resume needs goes away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..claims import busy_above, claimed
from ..errors import InputError
from ..progress import log
from ..training.left import STATE, drop, ended, state_file


def clean(directories: Sequence[Path]) -> dict[str, int]:
    """{directory of a run: bytes freed} of the directories and all below them. A run that has not
    ended keeps its state, and is told of. InputError, before anything goes, for what is no directory
    or has no run in it; and where another run writes there."""
    places = [place for directory in directories for place in _runs_in(Path(directory))]
    for place in places:
        if above := busy_above(place):
            raise InputError(f"{place}: another run writes in {above}; wait for it")
    freed = {}
    for place in places:
        with claimed(place, "clean"):
            if ended(place) is None:
                log(f"{place}: the run has not ended; its state stays, for --resume")
            elif size := drop(place):
                freed[str(place)] = size
    if not freed:
        log("nothing to remove")
    return freed


def _runs_in(directory: Path) -> list[Path]:
    """Directories in which a run has left its end or its state, those below first."""
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory")
    below = (path for path in sorted(directory.rglob("*"), reverse=True) if path.is_dir() and path.name != STATE)
    found = [place for place in (*below, directory) if (place / "run.json").is_file() or state_file(place).exists()]
    if not found:
        raise InputError(f"{directory}: no run of minitinybert in it")
    return found
