"""Fused kernels: an operation's passes over its arrays in one, in CUDA C and, for the CPU, in
Python that numba compiles. Each replaces the operation whose formula stands at its head, with the
same signature and numbers (tests/gpu/test_kernels.py, tests/kernels/); the table.py of each says
which. What a kernel of CUDA keeps for its backward is its own.
"""
