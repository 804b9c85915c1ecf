"""BERT: its configuration, parameters, encoder layers, heads, and the trace of a forward pass that
distillation looks at."""
