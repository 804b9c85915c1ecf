"""An automatic mutator: every place of the code that computes made wrong in every way it knows, and how many of these mutants the
audit kills by itself, and how many the tests.

    python tests/mutator.py [--all] [--sample 60] [--seed 0] [--by audit|tests] [part of a file's name …]        prints the score a file

Each mutant runs in a process of its own, forked from one that has the libraries in memory and nothing of the package. There the one
module is compiled with the change as it is imported: no file is written. The audit's judges are asked case by case, of the cases that
go through the changed lines, the quickest first, until one says no. What no judge can see stands in equivalent_mutants.py, with why.

Not changed: docstrings, annotations, messages, and the conditions under which input is refused (tests of their own ask for these).
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import os
import pickle
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minitinybert"
PATIENCE = 120  # seconds for a mutant; what takes longer goes round for ever

# What the audit has to prove, and the functions of it that are none of its business: files, sizes, messages, what is only quicker.
AUDITED = {
    "ops/*.py": (),
    "losses/*.py": (),
    "model/bert.py": (
        *("new", "load", "from_checkpoint", "_made", "_check_room", "check_finite", "save", "to", "astype", "for_reading"),
        *("num_parameters", "num_encoder_parameters", "check", "_initialise"),
    ),
    "model/encoder.py": (),
    "model/heads.py": (),
    "model/self_attention.py": (),
    "model/trace.py": (),
    "model/parameters.py": (
        *("check_finite", "shapes", "to", "astype", "_check_rows", "for_reading", "once", "__contains__", "__len__", "_of_members"),
    ),
    "distillation/distill.py": ("_heads_fit", "_by_layer"),
    "distillation/objectives.py": ("check",),
    "distillation/scores.py": (),
    "training/step.py": (),
    "training/shares.py": ("gradients_of_share",),
    "training/optim.py": (),
}


class Mutant(NamedTuple):
    file: str  # below minitinybert/
    function: str  # "Bert.backward"; "" at the top of the module
    lines: tuple[int, int]
    was: str  # the statement, of a compound one its first line
    becomes: str


# ---------------------------------------------------------------------------------------------------------------- ways to be wrong

_SWAPS: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
_NAMES = {
    "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "sum": "mean", "mean": "sum",
    "zeros": "ones", "zeros_like": "ones_like", "any": "all", "all": "any", "argmax": "argmin", "floor": "ceil", "sqrt": "square",
}

_NO_RESULT = ("copy", "strict")  # keywords that save a copy, or are a check
_NO_ORDER = ("swapaxes", "min", "max", "minimum", "maximum")  # of their arguments none is the first


def changes(node: ast.AST) -> Iterator[ast.AST | None]:
    """What could stand in a node's place; None: nothing, the statement is left out."""
    other = lambda **fields: _copy(node, **fields)
    match node:
        case ast.BinOp(left, operator, right):
            yield from (other(op=swap()) for swap in _SWAPS.get(type(operator), ()))
            yield from (left, right) if isinstance(operator, (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.MatMult)) else ()
        case ast.UnaryOp(ast.USub() | ast.Not(), operand):
            yield operand
        case ast.Compare(_, [operator], _):
            yield from (other(ops=[swap()]) for swap in _SWAPS[type(operator)])
        case ast.BoolOp(operator, values):
            yield other(op=_SWAPS[type(operator)][0]())
            yield from (other(values=values[:i] + values[i + 1 :]) if len(values) > 2 else values[1 - i] for i in range(len(values)))
        case ast.IfExp(test, _, _) | ast.If(test, _, _) | ast.While(test, _, _):
            yield other(test=ast.UnaryOp(ast.Not(), test))
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() as value):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Constant(float() as value):
            yield ast.Constant(value * 1.5 if value else 0.5)
        case ast.Slice(lower, upper, _):
            one = ast.Constant(1)
            yield other(lower=one if lower is None else ast.BinOp(lower, ast.Add(), one))
            yield other(upper=ast.UnaryOp(ast.USub(), one) if upper is None else ast.BinOp(upper, ast.Sub(), one))
        case ast.Call(function, arguments, keywords):
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if len(arguments) > 1 and name not in _NO_ORDER and not any(isinstance(a, ast.Starred) for a in arguments[:2]):
                yield other(args=[arguments[1], arguments[0], *arguments[2:]])
            if len(arguments) > 1:
                yield other(args=arguments[:-1])
            dropped = (i for i, keyword in enumerate(keywords) if keyword.arg not in _NO_RESULT)
            yield from (other(keywords=keywords[:i] + keywords[i + 1 :]) for i in dropped)
            if isinstance(function, ast.Name) and function.id in _NAMES:
                yield other(func=ast.Name(_NAMES[function.id], ast.Load()))
            if isinstance(function, ast.Attribute) and function.attr in _NAMES:
                yield other(func=_copy(function, attr=_NAMES[function.attr]))
        case ast.Attribute(value, "T", _):
            yield value
        case ast.Return(ast.Tuple([first, second, *rest])):
            yield other(value=ast.Tuple([second, first, *rest], ast.Load()))
        case ast.AugAssign(target, operator, value):
            yield from (other(op=swap()) for swap in _SWAPS.get(type(operator), ()))
            yield ast.Assign([target], value)
            yield None
        case ast.Expr(ast.Call()):
            yield None
        case ast.Assign([ast.Subscript() | ast.Attribute()], _):
            yield None
        case ast.comprehension(_, _, [test, *rest]):
            yield from (other(ifs=[ast.UnaryOp(ast.Not(), test), *rest]), other(ifs=rest))


def _copy(node: ast.AST, **fields: Any) -> Any:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


# ---------------------------------------------------------------------------------------------------------------- the mutants of a file


def mutants_of(file: str, left_out: Sequence[str] = ()) -> list[Mutant]:
    found = dict.fromkeys(mutant for mutant, _ in _walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8")), file, left_out))
    return [mutant for mutant in found if mutant.was != mutant.becomes]


def compiled(mutants: Sequence[Mutant]) -> dict[Mutant, CodeType]:
    """Their modules, with the changes."""
    found, wanted = {}, set(mutants)
    for file in dict.fromkeys(mutant.file for mutant in mutants):
        for mutant, tree in _walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8")), file):
            if mutant in wanted and mutant not in found:
                found[mutant] = compile(ast.fix_missing_locations(tree), str(PACKAGE / file), "exec", dont_inherit=True)
    return found


def _walk(tree: ast.Module, file: str, left_out: Sequence[str] = ()) -> Iterator[tuple[Mutant, ast.Module]]:
    """Each mutant, with the tree, which is changed as long as the mutant is looked at."""
    for function, statement, exchange in list(_statements(tree, ())):
        if set(function) & set(left_out):
            continue
        was, lines = _header(statement), (statement.lineno, _header_end(statement))
        for place, put in [(statement, exchange), *_places(statement)]:
            for new in changes(place):
                new = ast.Pass() if new is None else new
                put(new)
                yield Mutant(file, ".".join(function), lines, was, _header(new if place is statement else statement)), tree
                put(place)


def _statements(node: ast.AST, function: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], ast.stmt, Callable[[Any], None]]]:
    """The statements that compute, each with the names of what it stands in, and how to exchange it."""
    for body in (getattr(node, field, []) for field in _BODIES):
        for i, child in enumerate(body):
            named = (*function, child.name) if isinstance(child, (ast.FunctionDef, ast.ClassDef)) else function
            if not _says_nothing(child):
                yield named, child, lambda new, among=body, i=i: among.__setitem__(i, new)
            yield from _statements(child, named)


def _header(statement: ast.stmt) -> str:
    """A statement on one line; of a compound one the line before its body."""
    alone = _copy(statement, **{field: [ast.Pass()] if field == "body" else [] for field in _BODIES if hasattr(statement, field)})
    return ast.unparse(ast.fix_missing_locations(alone)).splitlines()[0]


def _header_end(statement: ast.stmt) -> int:
    body = getattr(statement, "body", None)
    return body[0].lineno - 1 if body else statement.end_lineno or statement.lineno


def _says_nothing(statement: ast.stmt) -> bool:
    """Docstrings, imports, refusals."""
    match statement:
        case ast.Expr(ast.Constant()) | ast.Import() | ast.ImportFrom() | ast.Raise() | ast.Assert() | ast.FunctionDef() | ast.ClassDef():
            return True
        case ast.If(_, [ast.Raise()], []):
            return True
        case ast.Assign([ast.Name(name)], _) | ast.AnnAssign(ast.Name(name), _, _):
            return name in ("A", "B", "Array", "Affine", "Made")  # types
    return False


_BODIES = ("body", "orelse", "finalbody", "handlers")


def _places(node: Any) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    """The expressions of a statement and how to exchange each. Those of its bodies are of statements of their own; annotations and
    messages say nothing, and of which array the library is asked does not matter."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("InputError", "TypeVar", "cast", "array_module"):
        return
    for field, value in ast.iter_fields(node):
        if field == "annotation" or (isinstance(node, ast.stmt) and field in _BODIES):
            continue
        for i, child in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(child, ast.keyword) and child.arg in _NO_RESULT or _is_the_rest(node, child):
                continue
            if isinstance(child, (ast.expr, ast.comprehension, ast.keyword)):
                if isinstance(value, list):
                    yield child, lambda new, among=value, i=i: among.__setitem__(i, new)
                else:
                    yield child, lambda new, node=node, field=field: setattr(node, field, new)
                yield from _places(child)


def _is_the_rest(call: Any, child: Any) -> bool:
    """The −1 of a reshape, for which any negative number may stand."""
    reshape = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "reshape"
    return reshape and isinstance(child, ast.UnaryOp)


# ---------------------------------------------------------------------------------------------------------------- in a process of its own


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Where the import of one module finds its mutant."""

    def __init__(self, file: str, code: CodeType):
        self.name = "minitinybert." + file.removesuffix(".py").replace("/", ".")
        self.path, self.code = str(PACKAGE / file), code

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        exec(self.code, module.__dict__)


def warm() -> None:
    """What every mutant needs and no mutant changes, in memory once."""
    import numpy  # noqa: F401
    import scipy.special  # noqa: F401
    import tabulate  # noqa: F401
    import threadpoolctl  # noqa: F401
    import torch

    torch.set_num_threads(1)
    assert not any(name.startswith("minitinybert") for name in sys.modules)


def in_a_fork(work: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """What `work` gives, pickled, from a process of its own; a RuntimeError that says what it raised (an exception of the package's
    would bring the package here, and with it the unchanged code to all that are forked later); or None where it took too long or died."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        signal.alarm(int(patience))
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        try:
            answer = work()
        except BaseException as error:
            answer = RuntimeError(type(error).__name__)
        with os.fdopen(write, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    answer = pickle.loads(said) if said else None
    assert not any(name.startswith("minitinybert") for name in sys.modules)
    return answer


# ---------------------------------------------------------------------------------------------------------------- the audit as a judge

JUDGES = ("stored", "the page", "PyTorch", "finite differences")


def ask(case: Any, judge: str) -> bool:
    """Whether a judge of the audit says no to a case."""
    import numpy as np

    from minitinybert import audit
    from minitinybert.audit import judges

    reference, tolerance = audit.reference_twin()[0], audit.TOLERANCES[judge]
    wrong = lambda deviations: any(deviation.error > tolerance for deviation in deviations)
    if judge == "stored":
        return any(wrong(audit.check_stored(case, example)) for example in audit.stored(case.name))
    assert reference is not None
    if (judge == "the page" and case.name in reference.SILENT) or (judge == "finite differences" and case.backward is None):
        return False
    for number, draw in enumerate(case.sources(0)):
        inputs, norms = case.draw(draw).cast(np.float64), {}
        if judge == "the page":
            found = judges.check_page(case, inputs, draw, reference)
        elif judge == "PyTorch":
            found = judges.check_twin(case, inputs, draw, reference)
        else:
            found = [*judges.check_vjp(case, inputs, draw, norms, apart=number < case.apart)]
            found += judges.unproven(case, norms) if number == 0 else []
        if wrong(found):
            return True
    return False


def cases() -> list[Any]:
    os.environ["MINITINYBERT_NUMBA"] = "0"
    from minitinybert import audit

    return [*audit.CASES, *audit.MODEL_CASES, *audit.OPTIMISER_CASES]


def gone_through() -> dict[str, tuple[float, set[tuple[str, int]]]]:
    """Of each case how long its draws take, and which lines of the package they go through, in float32 and in float64."""
    import numpy as np

    from minitinybert import audit

    found = {}
    for case in cases():
        seen: set[tuple[str, int]] = set()

        def trace(frame: Any, event: str, _: Any, seen: set[tuple[str, int]] = seen) -> Any:
            if not frame.f_code.co_filename.startswith(str(PACKAGE)):
                return None
            seen.add((frame.f_code.co_filename[len(str(PACKAGE)) + 1 :], frame.f_lineno))
            return trace

        start = time.perf_counter()
        threading.settrace(trace)
        sys.settrace(trace)
        for number, draw in enumerate(case.sources(0)):
            for dtype in (np.float32, np.float64) if number < 4 else (np.float64,):
                inputs = case.draw(draw).cast(dtype)
                outputs, cache = case.run(inputs)
                case.gradients(inputs, {} if case.backward is None else audit.upstream(draw, outputs), cache)
        sys.settrace(None)
        found[case.name] = time.perf_counter() - start, seen
    return found


def _at_import(mutant: Mutant) -> bool:
    """Whether the statement stands in a module or a class: no case goes through it, and any may see it."""
    return mutant.function.rpartition(".")[2].lstrip("_")[:1].isupper() or not mutant.function


def killer(mutant: Mutant, code: CodeType, through: dict[str, tuple[float, set[tuple[str, int]]]]) -> str:
    """Which judge of the audit says no first, of which case; "" where none does."""
    first, last = mutant.lines
    touched = [name for name, (_, seen) in through.items() if any((mutant.file, line) in seen for line in range(first, last + 1))]
    if not touched and not _at_import(mutant):
        return ""  # no case comes this way
    order = sorted(touched if touched else through, key=lambda name: through[name][0])

    def work() -> str:
        sys.meta_path.insert(0, Changed(mutant.file, code))
        named = {case.name: case for case in cases()}
        for judge in JUDGES:
            for name in order:
                if ask(named[name], judge):
                    return f"{judge}, {name}"
        return ""

    answer = in_a_fork(work)
    return answer if isinstance(answer, str) else str(answer or "no end")


# ---------------------------------------------------------------------------------------------------------------- the tests as a judge


def tests_of(file: str) -> list[str]:
    """The tests that a change of a file is to be seen by: those of its own file, of its room, and of whole steps."""
    room, name = file.rsplit("/", 1)
    listed = [f"tests/{room}/test_{name}", f"tests/{room}", "tests/losses/test_laws.py", "tests/model/test_model.py"]
    listed += [f"tests/{other}.py" for other in ("training/test_step", "training/test_shares", "distillation/test_released", "test_page")]
    return [path for path in dict.fromkeys(listed) if (ROOT / path).exists()]


def killed_by_tests(mutant: Mutant, code: CodeType) -> str:
    def work() -> str:
        import pytest

        sys.meta_path.insert(0, Changed(mutant.file, code))
        os.chdir(ROOT)
        return "tests" if pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests_of(mutant.file)]) else ""

    answer = in_a_fork(work, patience=1200)
    return answer if isinstance(answer, str) else str(answer or "no end")


# ---------------------------------------------------------------------------------------------------------------- the score


def files(parts: Sequence[str] = ()) -> list[tuple[str, tuple[str, ...]]]:
    found = []
    for pattern, left_out in AUDITED.items():
        for path in sorted(PACKAGE.glob(pattern)):
            file = path.relative_to(PACKAGE).as_posix()
            if not parts or any(part in file for part in parts):
                found.append((file, left_out))
    return found


def all_mutants(parts: Sequence[str] = ()) -> list[Mutant]:
    """But for those that are known to be equivalent."""
    from equivalent_mutants import EQUIVALENT

    of_files = [mutant for file, left_out in files(parts) for mutant in mutants_of(file, left_out)]
    return [m for m in of_files if (m.file, m.function, m.was, m.becomes) not in EQUIVALENT]


def score(
    mutants: Sequence[Mutant], by: str = "audit", tell: Callable[[str], None] = lambda line: None
) -> dict[str, list[tuple[Mutant, str]]]:
    """Of each file its mutants, and who killed each."""
    warm()
    through = in_a_fork(gone_through, patience=1200) if by == "audit" else {}
    if not isinstance(through, dict):
        raise RuntimeError(f"the unchanged audit did not run: {through!r}")
    found: dict[str, list[tuple[Mutant, str]]] = {}
    for mutant, code in compiled(mutants).items():
        said = killer(mutant, code, through) if by == "audit" else killed_by_tests(mutant, code)
        found.setdefault(mutant.file, []).append((mutant, said))
        tell(f"{said or 'LIVES'}: {mutant.file}:{mutant.lines[0]} {mutant.function}: {mutant.was} -> {mutant.becomes}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="parts of files' names")
    parser.add_argument("--all", action="store_true", help="every mutant")
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--by", choices=("audit", "tests"), default="audit")
    parser.add_argument("--part", default="1/1", help="i/n: every n-th mutant, from the i-th")
    options = parser.parse_args()
    mutants = all_mutants(options.parts)
    if not options.all:
        mutants = sampled(mutants, options.sample, options.seed)
    i, n = map(int, options.part.split("/"))
    found = score(mutants[i - 1 :: n], options.by, lambda line: print(line, flush=True))
    killed = 0
    for file, said in found.items():
        dead = sum(bool(by) for _, by in said)
        killed += dead
        print(f"{file:32} {dead:4} of {len(said):4} killed by the {options.by}")
    total = sum(map(len, found.values()))
    print(f"{'all':32} {killed:4} of {total:4} killed by the {options.by}: {killed / max(total, 1):.1%}")
    return 0


def sampled(mutants: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    chosen = random.Random(seed).sample(range(len(mutants)), min(count, len(mutants)))
    return [mutants[i] for i in sorted(chosen)]


if __name__ == "__main__":
    sys.exit(main())
