"""The one trainer: optimizers, schedules, checkpoints, budget."""
