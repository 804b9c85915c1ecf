"""Every mutant of every backward and objective dies by one of the judges, and the unmutated code by none."""

import ast
from pathlib import Path

import mutants
import pytest

from minitinybert.audit import CASES


def test_unmutated_code_satisfies_every_judge():
    assert mutants.killers([*CASES, *mutants.OWN_CASES]) == []


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: f"{m.file}-{m.function}-{mutants.MUTANTS.index(m)}")
def test_dies(mutant):
    assert mutants.judge(mutant, all_judges=False), f"{mutant.old!r} -> {mutant.new!r} in {mutant.file} lives"


def test_the_code_is_itself_again():
    mutant = mutants.MUTANTS[0]
    cases = [case for case in CASES if case.name == "ops.linear"]
    with mutants.applied(mutant):
        assert mutants.killers(cases)
    assert mutants.killers(cases) == []


def test_a_mutant_whose_source_has_moved_on_is_an_error():
    for old in ("nowhere to be found", "x", "y = _rows(x) @ W.T"):
        with pytest.raises(mutants.NoLongerApplies), mutants.applied(mutants.MUTANTS[0]._replace(old=old, new="y = _rows(x) @ W.T * 2")):
            pass


def test_every_backward_has_three_mutants():
    """Three each, but where there is only one term to be wrong in."""
    counted = {}
    for mutant in mutants.MUTANTS:
        name = mutant.file, mutant.function
        counted[name] = counted.get(name, 0) + 1
    few = {name for name, count in counted.items() if count < 3 and name[0] != mutants.PAGE}
    assert few <= ONE_TERM
    for path in [*mutants.PACKAGE.glob("ops/*.py"), *mutants.PACKAGE.glob("losses/*.py"), *(mutants.PACKAGE / f for f in FILES)]:
        file = str(Path(path).relative_to(mutants.PACKAGE).as_posix())
        for name in backwards(path, OBJECTIVES.get(file, ())):
            assert (file, name) in counted, f"no mutant for {name} in {file}"


def test_every_backward_and_loss_of_the_page_has_a_mutant():
    _, path = mutants._module(mutants.PAGE)
    names = [node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    named = {name for name in names if name.endswith(("_backward", "_loss"))}
    assert len(named) > 10 and named <= {m.function for m in mutants.MUTANTS if m.file == mutants.PAGE}


FILES = (
    *("model/self_attention.py", "model/encoder.py", "model/bert.py", "model/heads.py"),
    *("distillation/distill.py", "distillation/scores.py", "distillation/objectives.py", "distillation/tokens.py"),
    "training/step.py",
    "training/shares.py",
)
OBJECTIVES = {
    "distillation/distill.py": ("__call__", "_hidden", "_comparison"),
    "distillation/scores.py": ("compare", "_loss_and_gradient"),
    "distillation/objectives.py": ("__call__",),
    "distillation/tokens.py": ("__call__", "by_place", "by_row"),
    "training/step.py": ("step",),
    "training/shares.py": ("_of_rank", "_of_thread", "_of_share", "_sum", "_clear_tables"),
    "losses/attention.py": ("visible", "average", "spread"),
    "ops/attention.py": ("weighed",),
    "ops/embedding.py": ("add_rows",),
}
ONE_TERM = {
    ("model/bert.py", "tables"),
    ("model/bert.py", "_embedding_norm"),
    ("training/shares.py", "Learner.__init__"),
    ("training/step.py", "terms_of"),
    ("model/self_attention.py", "split"),
    ("model/self_attention.py", "join"),
    ("model/self_attention.py", "split_runs"),
    ("model/self_attention.py", "real_tokens"),
    ("model/self_attention.py", "_rows_that_ask"),
}


def backwards(path, others):
    """The functions and methods of a file whose name says that they go backward, and the others that make gradients."""
    goes_back = lambda f: isinstance(f, ast.FunctionDef) and ("backward" in f.name or f.name in others)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if goes_back(node):
            yield node.name
        if isinstance(node, ast.ClassDef) and node.name != "Objective":  # which has none
            yield from (f"{node.name}.{f.name}" for f in node.body if goes_back(f))
