"""Which solved examples stand before an item; never one that is tested."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from tianti.errors import UserError
from tianti.evaluate.metrics.text import words
from tianti.evaluate.tasks.config import FewShot
from tianti.evaluate.tasks.rows import Row, content_hash
from tianti.messages import tr

_K1, _B = 1.2, 0.75


class Examples:
    """Examples to choose from.

    Args:
        settings: how many and which.
        pool: what they are chosen from.
        tested: the items of the task: examples that ask the same are left out.
        asked: gives what an item asks, without its answer.
        where: named in errors.

    Raises:
        UserError: too few are left.
    """

    def __init__(
        self,
        settings: FewShot,
        pool: Sequence[Row],
        tested: Sequence[Row],
        asked: Callable[[Row], str],
        where: str,
    ):
        self.settings, self._asked = settings, asked
        # By what is asked: numbers and names of splits beside it would hide the same item.
        questions = {self._question(row) for row in tested} if pool else set()
        self.rows = [row for row in pool if self._question(row) not in questions]
        self.leaked = len(pool) - len(self.rows)
        if len(self.rows) < settings.k:
            raise UserError(
                tr(
                    "{count} examples are wanted, {left} are left without those that are tested",
                    count=settings.k,
                    left=len(self.rows),
                ),
                where=where,
                remedy=tr("Name another file in few_shot.data, or lower few_shot.k"),
            )
        self._index = None
        if self._similar:
            self._index = _Bm25([words(self._question(row)) for row in self.rows])

    @property
    def _similar(self) -> bool:
        return self.settings.k > 0 and self.settings.choose == "similar"

    def _question(self, row: Row) -> str:
        try:
            return self._asked(row)
        except UserError:
            # Told where it is tested or stands as an example; until then it is only itself.
            return content_hash(row)

    def of(self, row: Row) -> list[Row]:
        """Gives the examples of an item, the likest last."""
        k = self.settings.k
        if not k:
            return []
        if self._index is not None:
            best = self._index.best(words(self._question(row)), k)
            return [self.rows[place] for place in reversed(best)]
        if self.settings.choose == "first":
            return self.rows[:k]
        # By the item, not its number: with a limit it gets the same examples.
        chance = random.Random(f"{self.settings.seed} {content_hash(row)}")
        return chance.sample(self.rows, k)


class _Bm25:
    """Okapi BM25 (Robertson et al. 1994) over bags of words."""

    def __init__(self, bags: Sequence[tuple[str, ...]]):
        self._mean = sum(map(len, bags)) / max(len(bags), 1)
        self._lengths = [len(bag) for bag in bags]
        self._places: dict[str, list[tuple[int, int]]] = {}
        for place, bag in enumerate(bags):
            for word, count in Counter(bag).items():
                self._places.setdefault(word, []).append((place, count))

    def best(self, bag: tuple[str, ...], k: int) -> list[int]:
        """Gives the places of the likest, the likest first; ties and strangers in their order."""
        scores: dict[int, float] = defaultdict(float)
        for word in set(bag):
            found = self._places.get(word, [])
            rare = math.log(1 + (len(self._lengths) - len(found) + 0.5) / (len(found) + 0.5))
            for place, count in found:
                long = 1 - _B + _B * self._lengths[place] / max(self._mean, 1e-9)
                scores[place] += rare * count * (_K1 + 1) / (count + _K1 * long)
        ranked = sorted(scores, key=lambda place: (-scores[place], place))[:k]
        others = (place for place in range(len(self._lengths)) if place not in scores)
        return [*ranked, *[place for place, _ in zip(others, range(k - len(ranked)), strict=False)]]
