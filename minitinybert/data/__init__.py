"""Text to batches: the tokenizer, the GLUE tasks, metrics, batches by length, and the demo's data
from the package registry."""
