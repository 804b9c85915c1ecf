"""What runs the mathematics: which library an array is of, its memory, keyed random numbers,
batches, threads, ranks."""
