"""A permutation of 0…n-1 that is computed one element at a time.

A Feistel network over the smallest even number of bits that holds `n`, walked until it lands below
`n` (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Nothing is stored, so the
order of a billion rows costs no memory and resuming needs no seek.
"""

from __future__ import annotations

ROUNDS = 6
_MASK64 = (1 << 64) - 1


def mix(value: int) -> int:
    """Gives 64 well-mixed bits of an integer (the finaliser of SplitMix64)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


class Permutation:
    """The permutation of `range(size)` that belongs to a seed.

    Args:
        size: number of elements, at least 1.
        seed: any integer; another seed gives another order.
    """

    def __init__(self, size: int, seed: int):
        if size < 1:
            raise ValueError(f"a permutation needs at least one element, not {size}")
        self.size = size
        self._half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
        self._half_mask = (1 << self._half_bits) - 1
        self._keys = [mix(mix(seed & _MASK64) ^ round_number) for round_number in range(ROUNDS)]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        """Gives the element at a position.

        Raises:
            IndexError: the position is not in `range(size)`.
        """
        if not 0 <= index < self.size:
            raise IndexError(index)
        value = self._encrypt(index)
        while value >= self.size:
            value = self._encrypt(value)
        return value

    def _encrypt(self, value: int) -> int:
        left, right = value >> self._half_bits, value & self._half_mask
        for key in self._keys:
            left, right = right, left ^ (mix(right ^ key) & self._half_mask)
        return (left << self._half_bits) | right
