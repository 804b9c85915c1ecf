"""docs/environment.md names each environment variable that the package looks at or sets, and no other."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "environment.md"
NAME = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")


def named(path):
    """The names of variables in a file that has to do with the environment: its strings that look like one."""
    text = path.read_text(encoding="utf-8")
    if not re.search(r"\benviron\b|\bgetenv\b", text):
        return set()
    strings = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {value for value in strings if NAME.fullmatch(value)}


def tables():
    """The names in the first column of each table."""
    found = [[]]
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            found[-1] += re.findall(r"`([A-Z0-9_]+)`", line.split("|")[1])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def test_the_table_is_the_source_s():
    source = set().union(*map(named, (ROOT / "minitinybert").rglob("*.py")))
    ours, beneath = tables()
    assert set(ours) == source and len(source) >= 8
    assert len(ours) == len(set(ours)) and not set(ours) & set(beneath)


def test_a_new_name_would_be_seen(tmp_path):
    """Whichever way it is looked up."""
    for code in ('os.environ["A_NEW"]', 'os.getenv("A_NEW")', 'environ.get("A_NEW")', '_NAMES = ("A_NEW",)\nos.environ[_NAMES[0]]'):
        (tmp_path / "x.py").write_text(code)
        assert named(tmp_path / "x.py") == {"A_NEW"}
