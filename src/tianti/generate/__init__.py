"""Text from a model: sampling and the decoding loop."""
