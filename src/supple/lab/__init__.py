"""The laboratory: comparisons of methods on many networks at once. ``pip install "supple[lab]"``."""
