"""CUDA C in the place of an operation's many launches; table.py says which kernel stands for which
operation."""
