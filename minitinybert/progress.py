"""How far long work has come: a bar on a terminal or in a notebook, a plain line now and then in a
log. All on standard error, but for a notebook's bars."""

from __future__ import annotations

import os
import sys
import textwrap
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from .errors import in_words

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")
_SECONDS = 30.0  # between plain lines
_COLUMNS = 80


def is_quiet() -> bool:
    """Whether MINITINYBERT_QUIET=1, or a closed standard error, asks for silence."""
    return sys.stderr is None or os.environ.get("MINITINYBERT_QUIET", "") not in ("", "0")


def _in_a_notebook() -> bool:
    """Whether a kernel shows what is written, which is no terminal and yet draws bars."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _bars() -> type[tqdm]:
    """A notebook's widget where there is one, else of characters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets there are characters, and that is well
        from tqdm.auto import tqdm
    return tqdm


def log(line: str) -> None:
    """A plain line, above a bar where there is one. Nothing with MINITINYBERT_QUIET=1."""
    if not is_quiet():
        _bars().write(in_words(line), file=sys.stderr)


def folded(line: str) -> str:
    """A line for a terminal of 80 columns: a longer one goes on below, four columns further in."""
    return "\n".join(textwrap.wrap(line, _COLUMNS, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False))


def progress(iterable: Iterable[T], total: int, description: str, initial: int = 0, quiet: bool = False) -> Progress[T]:
    """`iterable`, shown as it is gone through: `initial` of `total` are done already. Silent with
    `quiet` or MINITINYBERT_QUIET=1."""
    return Progress(iterable, total, description, initial, quiet or is_quiet())


def download_bar(total: int | None, description: str) -> tqdm:
    """A bar of bytes, on a terminal alone. total: None where the server does not say."""
    return _bars()(total=total, desc=description, unit="B", unit_scale=True, leave=False, disable=is_quiet() or None, file=sys.stderr)


class Progress(Generic[T]):
    """Iterate over it; `set(loss=0.5)` shows values beside the bar, and on the next plain line."""

    def __init__(self, iterable: Iterable[T], total: int, description: str, initial: int, quiet: bool):
        self.iterable, self.total, self.description, self.done, self.quiet = iterable, total, description, initial, quiet
        self.values = ""
        self.bar: tqdm | None = None
        if not quiet and (sys.stderr.isatty() or _in_a_notebook()):
            self.bar = _bars()(total=total, initial=initial, desc=description, dynamic_ncols=True, file=sys.stderr)

    def set(self, **values: float) -> None:
        self.values = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self.bar is not None:
            self.bar.set_postfix_str(self.values)

    def __iter__(self) -> Iterator[T]:
        first = said = self.done
        started = spoken = time.monotonic()
        try:
            for item in self.iterable:
                yield item
                self.done += 1
                if self.bar is not None:
                    self.bar.update()
                elif time.monotonic() - spoken >= _SECONDS:
                    said, spoken = self.done, time.monotonic()
                    self._line(said - first, spoken - started)
            if self.bar is None and said < self.done:
                self._line(self.done - first, time.monotonic() - started)
        finally:
            if self.bar is not None:
                self.bar.close()

    def _line(self, count: int, seconds: float) -> None:
        if self.quiet:
            return
        rate = count / max(seconds, 1e-9)
        speed = f"{rate:.1f} it/s" if rate >= 1 else f"{1 / rate:.1f} s/it"  # as tqdm's bar has it
        left = (self.total - self.done) / rate / 60
        parts = [f"{self.description}: step {self.done}/{self.total}", speed, f"{left:.1f} min left"]
        log(_on_lines([*parts, *(self.values.split(", ") if self.values else ())]))


def _on_lines(parts: list[str]) -> str:
    """Parts with commas between them, on as many lines as 80 columns need."""
    lines = [parts[0]]
    for part in parts[1:]:
        fits = len(lines[-1]) + len(part) + 3 <= _COLUMNS  # and the comma behind it
        lines[-1:] = [f"{lines[-1]}, {part}"] if fits else [f"{lines[-1]},", f"  {part}"]
    return "\n".join(lines)
