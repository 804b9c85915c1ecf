"""What is learned, apart from the network that learns it: objectives, TinyBERT's two steps (eqs. 5,
6 and 11), recipes."""
