"""The book (docs/book.py): every chapter is there, with every line of its file, its equation as it is written, and ways on and back."""

import ast
import html
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

pytest.importorskip("pdoc", reason="the book needs pdoc: pip install -e '.[docs]'")

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("book", ROOT / "docs" / "book.py")
book = importlib.util.module_from_spec(spec)
spec.loader.exec_module(book)
CHAPTERS = book.chapters()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        directory = tmp_path_factory.mktemp("book")
        assert book.build(directory) == CHAPTERS
    return directory


def words(page):
    """What a reader sees of a page."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.split("<main>")[1]))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda c: c.title)
def test_a_chapter_has_every_line_in_order(built, chapter):
    seen, place = words((built / chapter.file).read_text(encoding="utf-8")), 0
    for line in chapter.path.read_text(encoding="utf-8").splitlines():
        line = re.sub(r'^\s*r?"""|"""$', "", line).strip()
        place = seen.find(line, place)
        assert place >= 0, f"{chapter.title}: {line!r} is not there, or not in its place"
        place += len(line)


@pytest.mark.parametrize("chapter", [c for c in CHAPTERS if c.part in ("Operations", "Losses")], ids=lambda c: c.title)
def test_equations_and_derivations_are_as_written(built, chapter):
    """Every docstring of an operation or loss, character by character, in paragraphs."""
    page = (built / chapter.file).read_text(encoding="utf-8")
    shown = [html.unescape(text) for text in re.findall(r'<pre class="(?:aligned|prose|lines)">(.*?)</pre>', page, re.DOTALL)]
    tree = ast.parse(chapter.path.read_text(encoding="utf-8"))
    documented = [tree, *(node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef)))]
    written = [ast.get_docstring(node, clean=False) for node in documented]
    paragraphs = [p for text in written if text for p in re.split(r"\n\s*\n", inspect.cleandoc(text))]
    assert sorted(shown) == sorted(paragraphs)


def test_what_is_aligned_stays_aligned():
    assert book._is_aligned("exact   Φ by erf\ntanh    Φ by tanh")
    assert book._is_aligned("The equation:\n    y = x")
    assert not book._is_aligned("Softmax:  p_i = e^{s_i}\nover the last axis")


def test_every_file_of_the_rooms_that_are_read_is_a_chapter():
    for room in ("ops", "losses", "model", "distillation", "training"):
        files = {path for path in (ROOT / "minitinybert" / room).glob("*.py") if path.stem != "__init__"}
        assert files <= {chapter.path for chapter in CHAPTERS}
    assert CHAPTERS[0].path == ROOT / "reference" / "tinybert.py"


def test_one_can_walk_through_it_and_every_link_leads_somewhere(built):
    file, walked = "index.html", []
    while file:
        page = (built / file).read_text(encoding="utf-8")
        for target in re.findall(r'(?:href|src)="([^"#]+)', page):
            assert (built / target).exists(), f"{file} links to {target}"
        walked.append(file)
        file = next(iter(re.findall(r'rel="next" href="([^"]+)"', page)), None)
    assert walked == ["index.html", *(chapter.file for chapter in CHAPTERS)]
