"""Search over settings: trials of one recipe, compared on validation."""
