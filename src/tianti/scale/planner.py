"""Which layout trains a model best on some devices, and what it takes, before anything is begun."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from tianti.errors import UserError
from tianti.messages import tr
from tianti.model.config import TransformerConfig
from tianti.scale.estimate import Estimate, estimate
from tianti.scale.hardware import Device
from tianti.scale.layout import Layout, fills, is_possible
from tianti.scale.memory import GIB, memory_of
from tianti.scale.work import Work
from tianti.train.config import TrainSettings
from tianti.units import format_count

SHOWN = 5
CHECKPOINTING = ("off", "selective", "full")
MOST_DEVICES = 1 << 14
MOST_STAGES, FEWEST_TOKENS = 64, 1024
# A step's rows may grow by so much to be shared evenly.
MOST_ROUNDED = 1.1
# How far estimates have been from what was measured (docs/benchmarks.md).
TIME_ERROR, MEMORY_ERROR = 0.2, 0.15


@dataclass(frozen=True)
class Choice:
    """One layout, and why it is where it is among the others.

    Args:
        estimate: what it takes.
        why: a sentence.
    """

    estimate: Estimate
    why: str

    def as_dict(self, tokens: float, price: float | None) -> dict[str, Any]:
        """Gives all figures as plain values.

        Args:
            tokens: trained on in all.
            price: of a device and hour.
        """
        found = self.estimate
        work, device = found.work, found.device
        speed, devices = found.tokens_per_second, work.layout.devices
        hours = tokens / speed / 3600
        memory = {kind: value / GIB for kind, value in vars(found.memory).items()}
        return {
            "layout": {
                **asdict(work.layout),
                "micro_batch_rows": work.micro_rows,
                "activation_checkpointing": work.checkpointing,
            },
            "fits": found.fits,
            "memory_gib": _rounded(memory | {"total": found.memory.total / GIB}),
            "tokens_per_second": round(speed, 1),
            "tokens_per_day": round(speed * 86400),
            "step_seconds": float(f"{found.seconds.total:.4g}"),
            "seconds": {kind: float(f"{value:.4g}") for kind, value in vars(found.seconds).items()},
            "sent_gb": _rounded({kind: value / 1e9 for kind, value in found.sent.items() if value}),
            "mfu": round(found.mfu, 4),
            "hours": float(f"{hours:.4g}"),
            "energy_kwh": float(f"{hours * devices * device.watts / 1e3:.4g}") or None,
            "cost": None if price is None else round(hours * devices * price, 2),
            "why": self.why,
        }


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


def plan_layouts(
    shape: TransformerConfig, settings: TrainSettings, count: int, device: Device
) -> list[Choice]:
    """Gives the best layouts, the best one first; where nothing fits, those that come nearest.

    Args:
        shape: the network.
        settings: of training.
        count: of devices.
        device: their kind.

    Raises:
        UserError: the rows of a step cannot be shared by so many.
    """
    found = _best_of_each(shape, settings, count, device)
    if not found:
        upper = settings.batch_rows + -settings.batch_rows % count
        raise UserError(
            tr(
                "{rows} rows of a step cannot be shared evenly by {parts} devices",
                rows=settings.batch_rows,
                parts=count,
            ),
            where="train.batch_tokens",
            remedy=tr(
                "Set train.batch_tokens={tokens}, or take fewer devices",
                tokens=upper * shape.context,
            ),
        )
    fitting = [one for one in found if one.fits]
    ranked = sorted(fitting, key=lambda one: -one.tokens_per_second)
    ranked += sorted((one for one in found if not one.fits), key=lambda one: one.memory.total)
    best = ranked[0]
    return [Choice(one, _why(one, best)) for one in ranked[:SHOWN]]


def _best_of_each(
    shape: TransformerConfig, settings: TrainSettings, count: int, device: Device
) -> list[Estimate]:
    """Gives for each layout and checkpointing the rows at once that are best."""
    found = []
    for layout in layouts(count, shape, device.per_machine):
        rows = settings.batch_rows + -settings.batch_rows % layout.row_groups
        if rows > settings.batch_rows * MOST_ROUNDED:
            continue
        for checkpointing in CHECKPOINTING:
            tried = []
            for at_once in _powers(rows // layout.row_groups):
                if not fills(rows // layout.row_groups // at_once, layout):
                    continue
                chosen = settings.model_copy(
                    update={
                        "batch_rows": rows,
                        "micro_batch_rows": at_once,
                        "activation_checkpointing": checkpointing,
                    }
                )
                tried.append(estimate(Work(shape, chosen, layout), device))
            if not tried:
                continue
            fitting = [one for one in tried if one.fits]
            # More rows at once travel less often and fill the device; without room, the fewest.
            found.append(min(fitting, key=lambda one: one.seconds.total) if fitting else tried[0])
    return found


def layouts(count: int, shape: TransformerConfig, per_machine: int) -> list[Layout]:
    """Gives the ways in which training can go over so many devices.

    Products are shared within a machine alone, whose links are fast; tokens of a row among no more
    devices than leave each `FEWEST_TOKENS`.

    Args:
        count: of devices.
        shape: the network.
        per_machine: devices with fast links between them.
    """
    found = []
    for pipeline in _divisors(count):
        if pipeline > min(shape.depth, MOST_STAGES):
            break
        for tensor in _divisors(count // pipeline):
            if tensor > per_machine:
                break
            for context in _divisors(count // pipeline // tensor):
                if context > 1 and shape.context // context < FEWEST_TOKENS:
                    break
                groups = count // pipeline // tensor // context
                for shard in _divisors(groups):
                    cut = {"replicate": groups // shard, "shard": shard, "context": context}
                    for more in _stages_and_experts(pipeline, tensor, shard * context, shape):
                        one = Layout(**cut, tensor=tensor, pipeline=pipeline, **more)
                        if is_possible(one, shape):
                            found.append(one)
    return found


def _stages_and_experts(
    pipeline: int, tensor: int, cut: int, shape: TransformerConfig
) -> list[dict[str, int]]:
    stages = [n for n in (1, 2, 4) if n == 1 or (pipeline > 1 and pipeline * n <= shape.depth)]
    experts = [1]
    if shape.num_experts:
        experts = [n for n in _divisors(cut * tensor) if shape.num_experts % n == 0]
    return [{"stages": some, "expert": expert} for some in stages for expert in experts]


@cache
def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _powers(most: int) -> list[int]:
    """Gives the powers of 2 up to a number that divide it."""
    return [1 << i for i in range(most.bit_length()) if most % (1 << i) == 0]


def _why(one: Estimate, best: Estimate) -> str:
    if not one.fits:
        return _too_large(one)
    if one is best:
        spent = max(vars(one.seconds).items(), key=lambda item: item[1])
        return tr(
            "the fastest that fits: {share} of the step are {kind}",
            share=f"{spent[1] / one.seconds.total:.0%}",
            kind=_kind(spent[0]),
        )
    slower = best.tokens_per_second / one.tokens_per_second - 1
    longer = {
        kind: value - getattr(best.seconds, kind) for kind, value in vars(one.seconds).items()
    }
    kind = max(longer, key=lambda name: longer[name])
    if kind in ("products", "attention") and one.work.checkpointing == "full":
        return tr("{share} slower: layers are computed again", share=f"{slower:.1%}")
    if slower < 0.005:
        return tr("as fast, with {memory} GiB", memory=f"{one.memory.total / GIB:.0f}")
    return tr("{share} slower: more for {kind}", share=f"{slower:.1%}", kind=_kind(kind))


def _too_large(one: Estimate) -> str:
    largest = max(vars(one.memory).items(), key=lambda item: item[1])
    return tr(
        "does not fit: {needed} of {there} GiB, {kind} most of it ({amount})",
        needed=f"{one.memory.total / GIB:.0f}",
        there=f"{one.device.memory_gib:.0f}",
        kind=_kind(largest[0]),
        amount=f"{largest[1] / GIB:.0f}",
    )


def _kind(name: str) -> str:
    return {
        "weights": tr("weights"),
        "gradients": tr("gradients"),
        "optimizer": tr("the optimizer"),
        "gathered": tr("weights put together"),
        "activations": tr("activations"),
        "logits": tr("the loss"),
        "reserve": tr("reserve"),
        "products": tr("products"),
        "attention": tr("attention"),
        "memory": tr("reading and writing memory"),
        "tensor": tr("collectives within layers"),
        "exposed": tr("weights and gradients on their way"),
        "bubble": tr("waiting stages"),
    }[name]


def what_would_fit(
    shape: TransformerConfig, settings: TrainSettings, count: int, device: Device
) -> str:
    """Gives what to do where nothing fits: all checkpointing and one row at once did not help."""
    more, nearest = count, float("inf")
    while (more := more * 2) <= MOST_DEVICES:
        # As many rows as there are devices, if need be.
        rows = max(settings.batch_rows, more)
        wanted = settings.model_copy(
            update={
                "batch_rows": rows + -rows % more,
                "micro_batch_rows": 1,
                "activation_checkpointing": "full",
            }
        )
        for layout in layouts(more, shape, device.per_machine):
            # Of several stages on a device more would be held.
            if layout.stages > 1 or not fills(wanted.batch_rows // layout.row_groups, layout):
                continue
            needed = memory_of(Work(shape, wanted, layout), device.kind).total
            if needed <= device.memory:
                return tr("{count} of these devices would hold it", count=more)
            nearest = min(nearest, needed)
    return tr(
        "However many of these devices: each needs {needed} GiB. Shorten model.context or take a"
        " smaller model.size than {size}",
        needed=f"{nearest / GIB:.0f}",
        size=format_count(shape.num_parameters()),
    )
