"""How it is learned: one step, the same on shares of a batch, Adam, the loop around them, its state
on disk, who answers for a teacher."""
