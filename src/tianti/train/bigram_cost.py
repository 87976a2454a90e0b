"""How much is computed to fit bigrams, and what that costs; known without computing anything."""

STEPS, ROWS, LEAST_ROWS = 60, 1024, 128
_LOGITS = 1 << 23


def rows_at_once(vocab_size: int) -> int:
    """Gives the rows of the table that one step of the fit takes."""
    return min(ROWS, max(LEAST_ROWS, _LOGITS // vocab_size))


def fit_flops(vocab_size: int, width: int) -> float:
    """Gives the floating-point operations of the products of the fit."""
    return 6.0 * STEPS * rows_at_once(vocab_size) * vocab_size * width
