"""The mutator: that it changes what it says and nothing else, and that the audit by itself kills what it makes (a sample of it)."""

import ast
import re
import subprocess
import sys

import equivalent_mutants
import mutator
import pytest


def of(source, tmp_path, monkeypatch):
    """What becomes of each statement of a module."""
    (tmp_path / "module.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(mutator, "PACKAGE", tmp_path)
    return {(m.function, m.becomes) for m in mutator.mutants_of("module.py")}


CHANGES = [
    ("return a + b", {"return a - b", "return a", "return b"}),
    ("return a @ b", {"return a", "return b"}),
    ("return -a", {"return a"}),
    ("return a < b", {"return a <= b", "return a > b"}),
    ("return a and b", {"return a or b", "return a", "return b"}),
    ("return a if b else c", {"return a if not b else c"}),
    ("return 2", {"return 3", "return 1"}),
    ("return a[1:]", {"return a[1 + 1:]", "return a[1:-1]", "return a[2:]", "return a[0:]"}),
    ("return f(a, b)", {"return f(b, a)", "return f(a)"}),
    ("return f(a, axis=0)", {"return f(a)", "return f(a, axis=1)", "return f(a, axis=-1)"}),
    ("return min(a)", {"return max(a)"}),
    ("return a.T", {"return a"}),
    ("return (a, b)", {"return (b, a)"}),
    ("a += b", {"a -= b", "a = b", "pass"}),
    ("a[b] = c", {"pass"}),
    ("f(a)", {"pass"}),
    ("return [a for a in b if c]", {"return [a for a in b if not c]", "return [a for a in b]"}),
    ("if a:\n    f(b)", {"if not a:", "pass"}),
    ("return f(a, copy=False)", set()),
    ("return a.reshape(-1)", set()),
    ("if a < 0:\n    raise InputError(f'{a + 1}')", set()),
    ('"""a + b"""', set()),
    ("a: x[1 + 1] = b", set()),
]


@pytest.mark.parametrize("statement, expected", CHANGES, ids=[statement.split("\n")[0] for statement, _ in CHANGES])
def test_what_becomes_of_a_statement(statement, expected, tmp_path, monkeypatch):
    source = "class C:\n    def f(self, a=1):\n        " + statement.replace("\n", "\n        ") + "\n"
    assert of(source, tmp_path, monkeypatch) == {("C.f", new) for new in expected}


def test_a_mutant_is_the_module_but_for_one_statement(tmp_path, monkeypatch):
    source = "def f(a):\n    b = a * 2\n    if b > 4:\n        b -= 1\n    return b\n\n\ndef g(a):\n    return f(a) + 1\n"
    of(source, tmp_path, monkeypatch)
    mutants = mutator.mutants_of("module.py")
    assert len(mutants) == len(set(mutants)) > 10
    code, answers = mutator.compiled(mutants), {}
    assert list(code) == mutants
    for mutant in mutants:
        module = {}
        exec(code[mutant], module)
        answers[mutant.becomes] = module["g"](5)
    plain = {}
    exec(source, plain)
    assert answers["b = a / 2"] == 3.5 and answers["pass"] == 11 and answers["if not b > 4:"] == 11 and answers["b += 1"] == 12
    assert sum(answer != plain["g"](5) for answer in answers.values()) > 8


def test_its_statements_are_all_there_is():
    """Each line of an audited file that computes something belongs to a statement that is looked at."""
    file = "losses/mse.py"
    lines = {line for m in mutator.mutants_of(file) for line in range(m.lines[0], m.lines[1] + 1)}
    tree = ast.parse((mutator.PACKAGE / file).read_text(encoding="utf-8"))
    computing = {n.lineno for n in ast.walk(tree) if isinstance(n, (ast.BinOp, ast.Compare, ast.AugAssign)) and n.lineno > 20}
    assert computing and computing <= lines | {n.lineno for n in ast.walk(tree) if isinstance(n, ast.arg)}


def test_no_backward_is_left_out():
    for file, left_out in mutator.files():
        assert not [name for name in left_out if "backward" in name or name in ("forward", "step", "update", "__call__")], file


def test_equivalent_mutants_are_mutants_and_have_a_reason():
    made = {(m.file, m.function, m.was, m.becomes) for file, left_out in mutator.files() for m in mutator.mutants_of(file, left_out)}
    for mutant, reason in equivalent_mutants.EQUIVALENT.items():
        assert mutant in made, f"no longer made: {mutant}"
        assert len(reason) > 10, mutant


def test_the_audit_by_itself_kills_what_the_mutator_makes():
    """The bar is 95 % of all (`python tests/mutator.py --all`); of a sample of 40, which is another where the code is, 90 %."""
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, mutator.__file__, "--sample", "40"], capture_output=True, text=True, check=False)
    killed, total = map(int, re.search(r"^all +(\d+) of +(\d+)", done.stdout, re.MULTILINE).groups()) if not done.returncode else (0, 0)
    assert total == 40 and killed >= 0.9 * total, done.stdout + done.stderr


def test_an_unchanged_module_is_killed_by_nobody_and_a_wrong_one_is(tmp_path):
    """In a process of its own, with the libraries warm, as the mutator asks."""
    script = f"""
import sys; sys.path.insert(0, {str(mutator.ROOT / "tests")!r})
import mutator
mutator.warm()
mutant = next(m for m in mutator.mutants_of("losses/mse.py") if m.function == "backward")
path = mutator.PACKAGE / mutant.file
code = compile(path.read_text(encoding="utf-8"), str(path), "exec")
through = {{"losses.mse": (1.0, {{("losses/mse.py", line) for line in range(100)}})}}
print(repr(mutator.killer(mutant, code, through)), repr(mutator.killer(mutant, mutator.compiled([mutant])[mutant], through)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split(" ", 1)[0] == "''" and len(done.stdout.split(" ", 1)[1]) > 4, done.stdout
