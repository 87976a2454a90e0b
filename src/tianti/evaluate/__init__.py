"""How good a model is: bits per byte with its confidence, and baselines to stand beside it."""
