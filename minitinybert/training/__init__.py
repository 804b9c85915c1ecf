"""How it is learned: one step, Adam, the loop around them, its state on disk, the teacher's answers kept."""
