"""The one Transformer, written for one device: shape, network, initialisation, size rules."""
