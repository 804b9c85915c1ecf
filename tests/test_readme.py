"""What README and the other pages say of the code is so: each equation's lines, every link, the example, the audit's rows.

    python tests/test_readme.py --write        puts the lines' numbers right, where the code has moved
"""

from __future__ import annotations

import ast
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from minitinybert.commands.arguments import build_parser

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")])
# [`losses/attention.py:17`](minitinybert/losses/attention.py#L17) `forward`
LINE = re.compile(r"\[`(?P<text>[^`]*):(?P<line>\d+)`\]\((?P<file>[^)#]+)#L(?P<anchor>\d+)\) `(?P<name>[\w.]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


class Line(NamedTuple):
    """A link to the line of `file` at which `name` begins."""

    text: str
    line: str
    file: str
    anchor: str
    name: str

    @property
    def wrong(self) -> str | None:
        """What is the matter, or None."""
        place = definitions(ROOT / self.file).get(self.name)
        if place is None:
            return f"{self.file} has no {self.name}"
        if self.text and not self.file.endswith(self.text):
            return f"the link's text says {self.text}, its target is {self.file}"
        if {self.line, self.anchor} != {str(place)}:
            return f"{self.file}:{place} has {self.name}, not line {self.line} (#L{self.anchor}): python tests/test_readme.py --write"
        return None


def definitions(path: Path) -> dict[str, int]:
    """The line of each function, method and class of a file, and of each name it imports under that name."""
    found: dict[str, int] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found[prefix + node.name] = node.lineno
            if isinstance(node, ast.ClassDef):
                visit(node.body, node.name + ".")
            if isinstance(node, ast.ImportFrom):
                found.update({alias.asname: node.lineno for alias in node.names if alias.asname == alias.name})

    if path.is_file():
        visit(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


def lines(text: str) -> list[Line]:
    return [Line(**match.groupdict()) for match in LINE.finditer(text)]


def rewritten(text: str) -> str:
    """The page with each link's line number as the code has it now."""

    def right(match: re.Match[str]) -> str:
        link = Line(**match.groupdict())
        place = definitions(ROOT / link.file).get(link.name, link.line)
        return f"[`{link.text}:{place}`]({link.file}#L{place}) `{link.name}`"

    return LINE.sub(right, text)


def rows(text: str) -> dict[str, list[Line]]:
    """The table of equations: {number: its links}. One number may have several rows, one row several numbers."""
    found: dict[str, list[Line]] = {}
    for row in re.findall(r"^\| .*\|$", text, re.MULTILINE):
        for number in row.split("|")[1].split(","):
            found.setdefault(number.strip(), []).extend(lines(row))
    return found


@pytest.mark.parametrize("link", lines(README.read_text(encoding="utf-8")), ids=lambda link: f"{link.file}-{link.name}")
def test_a_linked_line_begins_what_it_names(link):
    assert link.wrong is None


def test_every_equation_has_its_lines():
    """All eleven, the optimiser and the algorithm: in the package, and on the page."""
    table = rows(README.read_text(encoding="utf-8"))
    for number in (*map(str, range(1, 12)), "AdamW", "Alg. 1"):
        files = {link.file.split("/")[0] for link in table.get(number, [])}
        assert files == {"minitinybert", "reference"}, f"{number} links to {files or 'nothing'}"
    for number in (*map(str, range(1, 5)), *map(str, range(7, 11))):
        names = [link.name for link in table[number] if link.file.startswith("minitinybert")]
        assert [name for name in names if name != "compare"] == ["forward", "backward"], f"{number} links to {names}"


def test_a_wrong_line_is_seen_and_put_right():
    link = "[`ops/linear.py:1`](minitinybert/ops/linear.py#L1) `backward`"
    (wrong,) = lines(link)
    assert "--write" in wrong.wrong
    (right,) = lines(rewritten(link))
    assert right.wrong is None and right.line == str(definitions(ROOT / right.file)["backward"])
    (gone,) = lines(link.replace("`backward`", "`sideways`"))
    assert "has no sideways" in gone.wrong
    assert lines(link.replace("`ops/linear.py:1`", "`ops/softmax.py:1`"))[0].wrong


def relative_links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        text = re.sub(r"^```.*?^```|^    .*?$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for match in LINK.finditer(text):
            target = match.group(1) or match.group(2)
            if not re.match(r"[a-z]+:", target):
                yield page, target


@pytest.mark.parametrize(("page", "target"), list(relative_links()), ids=lambda value: value.name if isinstance(value, Path) else value)
def test_a_relative_link_leads_somewhere(page, target):
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    assert file.exists(), f"{page.relative_to(ROOT)} links to {target}"
    if line := re.fullmatch(r"L(\d+)", anchor):
        assert int(line.group(1)) <= len(file.read_text(encoding="utf-8").splitlines())
    elif anchor:
        assert anchor in headings(file), f"{page.relative_to(ROOT)} links to {target}, {path} has {headings(file)}"


def headings(file: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_are_found():
    assert len(list(relative_links())) > 60


def test_it_is_short_and_narrow():
    """README is one sitting; prose ends at column 100 (tables, pictures, commands and what they print may be wider)."""
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 100
    for page in (README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md")):
        prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for line in prose.splitlines():
            wide = len(line) > 100 and not line.startswith(("|", "    "))
            assert not wide, f"{page.relative_to(ROOT)}: {line}"


def test_the_audit_s_rows_are_the_audit_s():
    """The operations, formulas and tolerances that README shows are those that `minitinybert audit` prints."""
    from minitinybert import audit

    printed = README.read_text(encoding="utf-8").split("minitinybert audit\n")[1].split("\n\n**")[0]
    named = re.compile(r"    (ops|losses|bert|distill)\.")
    pairs = itertools.pairwise(printed.splitlines())
    shown = [(line.split(), below.split()) for line, below in pairs if named.match(line)]
    formulas = {case.name: case.formula.split() for case in (*audit.CASES, *audit.MODEL_CASES, *audit.OPTIMISER_CASES)}
    assert len(shown) >= 2
    for (name, *errors, verdict), formula in shown:
        assert formula == formulas[name], f"{name}: {formulas[name]}"
        limits = list(audit.TOLERANCES.values())
        assert verdict == "ok" and len(errors) == len(limits)
        assert all(float(error) <= limit for error, limit in zip(errors, limits, strict=True) if error != "–"), name
    assert f"{len(formulas)} audited" in printed


def test_the_demo_s_table_is_the_demo_s():
    """The table that README shows is how `minitinybert demo` prints those figures."""
    from minitinybert.commands.demo import STUDENT, format_report
    from minitinybert.data.significance import wilson

    text = README.read_text(encoding="utf-8")
    row = re.compile(r"^    (\w.*?) +(\S+H-\S+F) +(0\.\d+) ± \S+ +\S+% +(\S+) M +(\S+) M +(\S+)x$", re.MULTILINE)
    (teacher, *students), names = row.findall(text), ("teacher", "student", "baseline")
    assert len(students) == 2 and {shape for _, shape, *_ in students} == {STUDENT}
    models = {
        name: {
            "shape": shape, "accuracy": float(right), "interval": wilson(round(float(right) * 852), 852),
            "parameters": float(all_) * 1e6, "encoder_parameters": float(encoder) * 1e6,
        }
        for name, (_, shape, right, all_, encoder, _) in zip(names, (teacher, *students), strict=True)
    }  # fmt: skip
    rest = {"against_control": {"only_a": 0, "only_b": 0, "p": 1.0}}
    rest |= {"test_sentences": 852, "seconds": 0.0, "augmentation": {}, "example": {}, "out": "minitinybert-demo"}
    printed = format_report({"models": models, "speed_up": float(students[0][-1]), **rest}).splitlines()
    assert max(map(len, printed[:5])) <= 80
    for line in [*printed[:5], printed[-1]]:
        assert f"    {line}\n" in text, line


def test_the_table_of_switches():
    """docs/recipes.md has every switch of a recipe, and the values that the recipes give it: the paper's where it says one, else — and
    the recipe `paper` has ours."""
    from dataclasses import asdict

    from minitinybert.distillation.recipes import RECIPES

    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").split("## Hyper-parameters")[0]
    table = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|", text, re.MULTILINE)
    values = {name: [value.strip("`") for value in row] for name, *row in table}
    said = lambda value: str(value).lower() if isinstance(value, bool) else str(value)
    ours, paper, released = (asdict(RECIPES[name]) for name in ("default", "paper", "huawei-2019"))
    assert set(values) == set(ours)
    for name in ours:
        silent = values[name][0] == "—" and paper[name] == ours[name]
        expected = ["—" if silent else said(paper[name]), said(ours[name]), said(released[name])]
        assert values[name] == expected, f"docs/recipes.md: {name} is {', '.join(expected)}"


def test_every_command_that_a_page_shows_is_one():
    """`minitinybert …` lines of README, docs/ and bench/, as the command line takes them apart."""
    parser, found = build_parser(), 0
    for page in (README, *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("bench/*.md"))):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^    (?:\$ )?(?:.* && )?minitinybert (.*)$", text, re.MULTILINE):
            arguments = shlex.split(line.split(" | ")[0].split("    #")[0], comments=True)
            if "…" not in arguments:
                try:
                    parser.parse_args(arguments)
                except SystemExit:
                    pytest.fail(f"{page.relative_to(ROOT)}: minitinybert {line}")
                found += 1
    assert found > 20


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "training.md"], ids=lambda page: page.name)
def test_the_example_runs(page, tmp_path, monkeypatch):
    """The code of a page, on small models of random weights: what it learns by changes the student, and the loss goes down."""
    import minitinybert
    from minitinybert import Trace
    from minitinybert.losses import prediction
    from minitinybert.training.optim import Adam

    monkeypatch.chdir(tmp_path)
    for name, layers, width in (("teacher", 4, 8), ("student", 2, 6)):
        small(name, layers, width)
    ids = np.random.default_rng(0).integers(5, len(VOCABULARY), (3, 8))
    given = {"minitinybert": minitinybert, "Trace": Trace, "prediction": prediction, "Adam": Adam}
    given |= {"input_ids": ids, "attention_mask": np.ones_like(ids), "dlogits": np.ones((3, 2), np.float32)}
    run(page, given)
    if page is README:
        before = minitinybert.load("student").parameters
        moved = {name for name in before if not np.array_equal(given["student"].parameters[name], before[name])}
        assert {"classifier.weight", "bert.encoder.layer.0.output.dense.weight"} <= moved
        assert given["classify"](["a film"])[0].label in ("LABEL_0", "LABEL_1")
    else:
        assert set(given["gradients"]) == set(given["model"].parameters)


def test_docs_python_runs(tmp_path, monkeypatch):
    """On a BERT that has learned four hundred reviews of three words."""
    import minitinybert

    monkeypatch.chdir(tmp_path)
    small("student", 2, 6)
    small("start", 2, 16, head="none")
    rng = np.random.default_rng(0)
    (tmp_path / "reviews").mkdir()
    for split, n in (("train", 400), ("dev", 40)):
        rows = [f"a {label} {rng.choice(['film', 'plot'])},{label}" for label in rng.choice(["good", "bad"], n)]
        (tmp_path / "reviews" / f"{split}.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    data = {"task": "custom", "data": "reviews", "text_columns": "text", "label_column": "label"}
    minitinybert.finetune(model="start", out="bert", epochs=6, lr=5e-3, **data)
    given: dict[str, Any] = {}
    run(ROOT / "docs" / "python.md", given)
    assert given["answer"].probability == max(given["answer"].probabilities.values())
    assert [answer.text for answer in given["pairs"]] == [("who wrote it?", "she did"), ("who is she?", "nobody knows")]
    assert given["logits"].shape == (2, 2) and given["weights"].shape == (2, 2, len(given["pieces"]), len(given["pieces"]))
    student = minitinybert.evaluate(model="student-of-reviews", **data)
    assert given["teacher"].results["dev"]["accuracy"] > 0.9 and given["accuracy"] == student.results["dev"]["accuracy"]


WORDS = ["a", "good", "bad", "film", "plot", "funny", "dull", "who", "wrote", "it", "she", "did", "is", "one", "text", "and", "another"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "humane", "gripping", "knows", "nobody"]


def small(name: str, layers: int, width: int, head: str = "classifier") -> None:
    """A model of random weights and its tokenizer, in the working directory."""
    from minitinybert import Bert, Config

    Path("vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    sizes = {"vocab_size": len(VOCABULARY), "num_attention_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.1}
    config = Config(hidden_size=width, num_hidden_layers=layers, intermediate_size=2 * width, head=head, **sizes)
    model = Bert.new(config, seed=layers)
    model.tokenizer_files = {"vocab.txt": Path("vocab.txt")}
    model.save(name)


def run(page: Path, given: dict[str, Any]) -> None:
    """The code of a page, in `given`."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        exec(block, given)


def main() -> None:
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_readme.py --write")
    text = README.read_text(encoding="utf-8")
    new = rewritten(text)
    README.write_text(new, encoding="utf-8")
    for link in lines(new):
        if link.wrong:
            print(f"README.md: {link.wrong}", file=sys.stderr)
    changed = sum(a != b for a, b in zip(lines(text), lines(new), strict=True))
    print(f"README.md: {changed} of {len(lines(new))} line numbers changed")
    sys.exit(1 if any(link.wrong for link in lines(new)) else 0)


if __name__ == "__main__":
    main()
