"""Passes compiled by numba in the place of an operation's many over NumPy's arrays; table.py says
which stands for which."""
