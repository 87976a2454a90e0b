"""What a training run costs: arithmetic, memory and disk."""

from __future__ import annotations

from dataclasses import dataclass

from tianti.errors import UserError
from tianti.messages import tr
from tianti.model.config import TransformerConfig
from tianti.scale.layout import ONE_DEVICE, Layout
from tianti.scale.memory import Memory, memory_of
from tianti.scale.work import Work
from tianti.train.config import TrainSettings, TrainStageConfig
from tianti.units import format_bytes


@dataclass(frozen=True)
class Cost:
    """What training needs.

    Args:
        flops: floating-point operations in all.
        memory: at its peak.
        checkpoint_disk: bytes of the checkpoints kept and the model directory.
        tokens_disk: bytes of the token shards.
    """

    flops: float
    memory: Memory
    checkpoint_disk: float
    tokens_disk: int


def refuse_what_cannot_fit(
    config: TrainStageConfig, layout: Layout = ONE_DEVICE, processes: int = 1
) -> None:
    """Says before training begins that the device is too small for it, rather than being killed.

    Args:
        config: shape, settings and device.
        layout: of all devices.
        processes: of this machine that train; they share its memory where it is the device.

    Raises:
        UserError: even an empty device would not hold what training needs.
    """
    # Here, because it imports torch, which a run with nothing to do can be spared.
    from tianti.device import choose_device, memory_bytes

    device = choose_device(config.device)
    needed = memory_of(Work(config.model, config.settings, layout), device.type).total
    if device.type == "cpu":
        needed *= processes
    there = memory_bytes(device)
    if needed > there:
        raise UserError(
            tr(
                "training needs about {needed} of memory, {device} has {there}",
                needed=format_bytes(needed),
                device=device,
                there=format_bytes(there),
            ),
            where="train",
            remedy=tr("Lower train.micro_batch_rows or model.size"),
        )


def training_cost(
    shape: TransformerConfig,
    train: TrainSettings,
    tokens: float,
    corpus_tokens: float,
    device: str = "cpu",
) -> Cost:
    """Gives what training on one device needs, counted from the shape.

    Args:
        shape: the network.
        train: the settings of the trainer.
        tokens: tokens trained on.
        corpus_tokens: tokens of the training split.
        device: type of the device that trains.
    """
    memory = memory_of(Work(shape, train), device)
    checkpoint = memory.weights + memory.optimizer
    return Cost(
        flops=shape.flops_per_token() * tokens,
        memory=memory,
        checkpoint_disk=checkpoint * (train.keep_checkpoints + 1) + memory.weights,
        tokens_disk=int(corpus_tokens * (2 if shape.vocab_size <= 1 << 16 else 4)),
    )
