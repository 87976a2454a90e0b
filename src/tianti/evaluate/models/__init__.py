"""Whoever answers a task: a network of ours, one of transformers, or an endpoint."""
