"""What one training step improves: pure functions of logits and labels."""
