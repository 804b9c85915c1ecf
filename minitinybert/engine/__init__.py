"""What runs the mathematics: which library an array is of, keyed random numbers, batches,
threads, ranks."""
