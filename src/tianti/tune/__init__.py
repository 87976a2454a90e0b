"""Adapting a network to a task: examples, objectives, figures, predictions."""
