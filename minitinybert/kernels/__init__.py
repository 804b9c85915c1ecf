"""Fused kernels: an operation's passes over its arrays in one, in CUDA C. Each replaces, on CuPy arrays, the operation whose formula
stands at its head, with the same signature and numbers (tests/gpu/test_kernels.py); cuda/table.py says which. What a kernel keeps for its
backward is its own.
"""
