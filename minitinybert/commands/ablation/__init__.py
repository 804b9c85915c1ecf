"""The paper's ablations (tables 2 to 4) as a study of runs, and their report."""
