"""Fused kernels: an operation's passes over its arrays in one, in CUDA C. Each replaces, on CuPy arrays, the operation whose formula
stands at its head, with the same signature, Cache and numbers (tests/gpu/test_kernels.py); table.py says which.
"""
