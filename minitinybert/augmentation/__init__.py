"""Data augmentation (the paper's Algorithm 1): words, candidates by BERT and by word vectors,
files."""
