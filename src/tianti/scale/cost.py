"""What a training run costs: arithmetic, memory and disk."""

from __future__ import annotations

from dataclasses import dataclass

from tianti.errors import UserError
from tianti.messages import tr
from tianti.model.config import TransformerConfig
from tianti.objective.chunks import CHUNK_LOGITS, GPU_CHUNK_LOGITS
from tianti.train.config import TrainSettings, TrainStageConfig
from tianti.units import format_bytes

FLOAT_BYTES = 4
# What the process holds when training begins: libraries and what corpus and tokenizer needed;
# 464 MiB measured in the quickstart on Linux, torch 2.13. Larger corpora need more.
BASE_MEMORY = 464 * 2**20


@dataclass(frozen=True)
class Cost:
    """What training needs; memory and disk in bytes.

    Args:
        flops: floating-point operations in all.
        weights: memory of the weights.
        gradients: memory of the gradients.
        optimizer: memory of the moments.
        activations: memory kept for the backward pass of one micro-batch.
        logits: memory of the loss: a chunk of scores, and the gradients it keeps until then.
        checkpoint_disk: checkpoints kept and the model directory.
        tokens_disk: token shards.
    """

    flops: float
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    checkpoint_disk: int
    tokens_disk: int

    @property
    def memory(self) -> int:
        """Gives the memory of all of these together."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def refuse_what_cannot_fit(config: TrainStageConfig, shard: int = 1, processes: int = 1) -> None:
    """Says before training begins that the device is too small for it, rather than being killed.

    Args:
        config: shape, settings and device.
        shard: devices over which weights, gradients and moments are cut.
        processes: of this machine that train; they share its memory where it is the device.

    Raises:
        UserError: even an empty device would not hold what training needs.
    """
    # Here, because it imports torch, which a run with nothing to do can be spared.
    from tianti.device import choose_device, memory_bytes

    device = choose_device(config.device)
    cost = training_cost(config.model, config.settings, 0, 0, device.type)
    cut = cost.weights + cost.gradients + cost.optimizer
    needed = cost.memory - cut + cut // shard
    if device.type == "cpu":
        needed = (needed + BASE_MEMORY) * processes
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
    """Gives what training needs, counted from the shape.

    Args:
        shape: the network.
        train: the settings of the trainer.
        tokens: tokens trained on.
        corpus_tokens: tokens of the training split.
        device: type of the device that trains.
    """
    weights = shape.num_parameters() * FLOAT_BYTES
    hidden = shape.matrix_parameters() * FLOAT_BYTES
    moments = 2 * weights - (hidden if train.optimizer == "muon" else 0)
    rows = train.micro_batch_rows * shape.context
    mask = train.micro_batch_rows * shape.context**2
    scores = min(rows * shape.vocab_size, CHUNK_LOGITS if device == "cpu" else GPU_CHUNK_LOGITS)
    held = shape.width * (rows + shape.vocab_size)
    return Cost(
        flops=shape.flops_per_token() * tokens,
        weights=weights,
        gradients=weights,
        optimizer=moments,
        activations=rows * _kept(shape, train.activation_checkpointing) * FLOAT_BYTES + mask,
        logits=(2 * scores + held) * FLOAT_BYTES,
        checkpoint_disk=(weights + moments) * (train.keep_checkpoints + 1) + weights,
        tokens_disk=int(corpus_tokens * (2 if shape.vocab_size <= 1 << 16 else 4)),
    )


def _kept(shape: TransformerConfig, checkpointing: str) -> int:
    """Gives the numbers that all layers keep of a token for the backward pass."""
    # Stream and its norm twice, queries/keys/values before and after norm and rotation, the
    # gathered heads, gate, up, silu and product.
    attention = shape.attention_width + shape.kv_width
    layer = 6 * shape.width + 4 * attention + 2 * shape.attention_width + 5 * shape.mlp_width
    if checkpointing == "off":
        return shape.depth * layer
    kept = shape.width
    if checkpointing == "selective":
        # What products and attention gave.
        kept += 2 * shape.attention_width + 2 * shape.kv_width
        kept += 2 * shape.width + 2 * shape.mlp_width
    # The rest exists for one layer at a time.
    return shape.depth * kept + layer
