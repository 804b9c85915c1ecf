"""The book: the code in reading order, a chapter a file, its equations and derivations as text between the lines of code.

    pip install -e ".[docs]"
    python docs/book.py [DIRECTORY]        writes DIRECTORY/index.html (docs/book/index.html) and a page a chapter

pdoc imports the modules and renders the pages by the templates in docs/theme/. A chapter is its file from the first line to the last,
in its order: docstrings are shown as they are written, aligned lines aligned, all else is code with the file's line numbers.
"""

from __future__ import annotations

import ast
import html
import importlib
import inspect
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pdoc.doc
import pdoc.render
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

ROOT = Path(__file__).resolve().parents[1]
THEME = ROOT / "docs" / "theme"

# The parts: a title, the room, and which of its files come first. Those that are not named follow by their names.
PARTS: tuple[tuple[str, str, str], ...] = (
    ("The page: all of it", "reference/tinybert.py", ""),
    ("Operations", "minitinybert/ops", "__init__ linear softmax attention gelu feed_forward layer_norm dropout add_norm embedding"),
    ("Losses", "minitinybert/losses", "__init__ mse attention hidden embedding prediction cross_entropy mlm"),
    ("The model", "minitinybert/model", "trace self_attention encoder heads bert parameters config"),
    ("Distillation", "minitinybert/distillation", "objectives distill tokens scores recipes"),
    ("Training", "minitinybert/training", "step teacher optim loop plan cut shares answers kept_traces"),
    ("Augmentation", "minitinybert/augmentation", "algorithm candidates words vectors files"),
    ("The engine", "minitinybert/engine", "random batch parallel memory device"),
    ("The proof", "minitinybert/audit", "case operations models judges"),
)


class Chapter(NamedTuple):
    part: str
    module: str  # reference.tinybert, minitinybert.ops.linear
    path: Path

    @property
    def title(self) -> str:
        """tinybert.py, ops/linear.py."""
        return str(self.path.relative_to(ROOT).as_posix()).removeprefix("minitinybert/")

    @property
    def file(self) -> str:
        return self.title.removesuffix(".py").replace("/", "-") + ".html"

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (ast.get_docstring(ast.parse(self.path.read_text(encoding="utf-8"))) or "").split("\n")[0].replace("`", "")


class Block(NamedTuple):
    """A stretch of a chapter: text of a docstring, or lines of code; what begins there, by its name, or ""."""

    kind: str  # "text" or "code"
    html: str
    name: str
    indent: int  # columns


def chapters() -> list[Chapter]:
    found = []
    for part, place, first in PARTS:
        order = {name: i for i, name in enumerate(first.split())}
        paths = [ROOT / place] if place.endswith(".py") else (ROOT / place).glob("*.py")
        for path in sorted(paths, key=lambda path: (order.get(path.stem, len(order)), path.stem)):
            if path.stem != "__init__" or path.stem in order:
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                found.append(Chapter(part, name.removesuffix(".__init__"), path))
    return found


def blocks(path: Path) -> list[Block]:
    """A file cut at its docstrings and at the beginnings of its functions, classes and methods."""
    source = path.read_text(encoding="utf-8")
    lines, found = source.splitlines(), []
    done, name = 0, ""  # lines that are in a block, what the next one begins

    def code(until: int) -> None:
        nonlocal done, name
        first, last = done, until
        while first < last and not lines[first].strip():
            first += 1
        while last > first and not lines[last - 1].strip():
            last -= 1
        if first < last:
            found.append(Block("code", _code(lines[first:last], first + 1), name, 0))
            name = ""
        done = until

    def visit(body: Sequence[ast.stmt], prefix: str) -> None:
        nonlocal done, name
        for i, node in enumerate(body):
            if i == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                code(node.lineno - 1)
                found.append(Block("text", _text(inspect.cleandoc(node.value.value)), "", node.col_offset))
                done = node.end_lineno or node.lineno
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                code(min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1)
                name = prefix + node.name
                visit(node.body if isinstance(node, ast.ClassDef) else node.body[:1], prefix + node.name + ".")
                code(node.end_lineno or node.lineno)

    visit(ast.parse(source).body, "")
    code(len(lines))
    return found


def _code(lines: list[str], first: int) -> str:
    formatter = HtmlFormatter(linenos="inline", linenostart=first, cssclass="pdoc-code")
    return str(highlight("\n".join(lines), PythonLexer(stripnl=False), formatter))


def _text(docstring: str) -> str:
    """Its paragraphs, as they are written. Where columns count they are kept; else a line that is too long for a narrow window may wrap,
    and there the lines of plain prose, which are filled up to the last, flow together."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", docstring):
        filled = all(len(line) > 70 for line in paragraph.split("\n")[:-1])
        kind = "aligned" if _is_aligned(paragraph) else "prose" if filled else "lines"
        parts.append(f'<pre class="{kind}">{html.escape(paragraph, quote=False)}</pre>')
    return "\n".join(parts)


def _is_aligned(paragraph: str) -> bool:
    """Whether a line is indented or an example, or something stands in one column of two lines, behind a gap."""
    columns = [gap.end() for line in paragraph.split("\n") for gap in re.finditer(r"\S\s{2,}(?=\S)", line)]
    return re.search("^( |>>>)", paragraph, re.MULTILINE) is not None or len(set(columns)) < len(columns)


def build(directory: Path) -> list[Chapter]:
    """Write the book; returns its chapters."""
    book = chapters()
    style = HtmlFormatter(style="github-dark").get_style_defs(".pdoc-code")
    shared: dict[str, Any] = {"book": book, "blocks": blocks, "dark_code": style, "parts": list(_by_part(book))}
    pdoc.render.configure(template_directory=THEME, search=False)
    pdoc.render.env.globals.update(shared)
    modules = {c.module: pdoc.doc.Module(importlib.import_module(c.module)) for c in book}
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "docs" / "picture.svg", directory)
    for number, chapter in enumerate(book):
        pdoc.render.env.globals.update(chapter=chapter, number=number)
        (directory / chapter.file).write_text(pdoc.render.html_module(modules[chapter.module], modules), encoding="utf-8")
    (directory / "index.html").write_text(pdoc.render.html_index(modules), encoding="utf-8")
    return book


def _by_part(book: list[Chapter]) -> Iterator[tuple[str, list[Chapter]]]:
    for part, *_ in PARTS:
        yield part, [chapter for chapter in book if chapter.part == part]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    to = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "book"
    print(f"{len(build(to))} chapters: {to / 'index.html'}")
