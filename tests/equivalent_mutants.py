"""Mutants of mutator.py that no judge can kill, because they compute the same, and why; each by file, function, statement and what
becomes of it."""

EQUIVALENT: dict[tuple[str, str, str, str], str] = {}
