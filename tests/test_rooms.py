"""The order of the rooms: imports run one way, downwards, those inside functions counted; nothing imports in a circle."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = [  # from the lowest: a room imports from those above it in this list, and from itself
    {"errors", "extras", "version"},
    {"files", "progress"},
    {"claims"},
    {"engine"},
    {"ops"},
    {"losses"},
    {"weights"},
    {"data"},
    {"model"},
    {"distillation"},
    {"training"},
    {"kernels"},  # above what they replace
    {"machine"},
    {"augmentation", "audit"},
    {"commands"},
    {"api"},
    {"__init__", "__main__"},
]


def modules(package):
    """{dotted name: path} of every file of a package."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name, path, known):
    """The modules of `known` that a file imports, anywhere in it."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names}
    return (found & set(known)) - {name}


def graph(package):
    known = modules(package)
    return {name: imports(name, path, known) for name, path in known.items()}


def circles(arrows):
    """Sets of modules each of which reaches every other (Tarjan 1972)."""
    number, low, stack, found = {}, {}, [], []

    def visit(name):
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in sorted(arrows[name]):
            if other not in number:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == number[name]:
            at = stack.index(name)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for name in sorted(arrows):
        if name not in number:
            visit(name)
    return found


@pytest.mark.parametrize("package", ["minitinybert", "reference"])
def test_nothing_imports_in_a_circle(package):
    assert circles(graph(package)) == []


def test_a_circle_would_be_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_arrows_run_downwards():
    level = {room: i for i, rooms in enumerate(ORDER) for room in rooms}
    room = lambda name: name.split(".")[1] if "." in name else "__init__"
    arrows = graph("minitinybert")
    assert {room(name) for name in arrows} == set(level), "a room that has no place in the order, or one that is gone"
    upwards = [f"{a} -> {b}" for a, others in arrows.items() for b in others if level[room(b)] > level[room(a)]]
    beside = [f"{a} -> {b}" for a, others in arrows.items() for b in others if room(a) != room(b) and level[room(a)] == level[room(b)]]
    assert not upwards and not beside, "\n".join(upwards + beside)


def test_only_the_machine_brings_kernels():
    arrows = graph("minitinybert")
    bring = {a for a, others in arrows.items() if any(b.startswith("minitinybert.kernels") for b in others)}
    assert {a for a in bring if not a.startswith("minitinybert.kernels")} == {"minitinybert.machine"}
