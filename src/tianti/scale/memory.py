"""Peak memory of a step of training by kind, on a GPU and on a processor."""

from __future__ import annotations

from dataclasses import dataclass

from tianti.objective.chunks import GPU_CHUNK_LOGITS
from tianti.scale.work import Work

GIB = 2**30
# What is allocated and in no piece large enough for what is asked for.
FRAGMENTATION = 0.04
# CUDA's context and NCCL's buffers.
GPU_CONTEXT_BYTES = 1.6 * GIB
# A processor: what a process holds besides; how much of what is kept, of one layer's, and of the
# loss' gradients the C library has in use at the peak. Fitted to 18 trainings of a few steps
# (benchmarks/plan.py).
PROCESS_BYTES = 535e6
CPU_KEPT, CPU_LAYER, CPU_LOSS = 1.07, 0.67, 4.6


@dataclass(frozen=True)
class Memory:
    """Peak memory of the fullest device by kind, in bytes.

    Args:
        weights: its part, float32.
        gradients: of these.
        optimizer: moments.
        gathered: weights put together for a layer, and rounded copies.
        activations: kept for the backward pass.
        logits: of the loss.
        reserve: the process itself, buffers of collectives, fragmentation.
    """

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float
    logits: float
    reserve: float

    @property
    def total(self) -> float:
        """Gives all together."""
        return sum(vars(self).values())


def memory_of(work: Work, kind: str) -> Memory:
    """Gives the peak memory of the fullest device.

    Args:
        work: what a step is.
        kind: of the device: `cpu`, or any other for bfloat16 over weights in float32.
    """
    if kind == "cpu":
        return _of_a_process(work)
    layout = work.layout
    weights, moments = _held(work)
    float8 = work.settings.float8
    kept = work.micro_tokens * work.stage_layers * kept_bytes(work, work.checkpointing, 2, float8)
    if layout.pipeline > 1:
        kept *= work.in_flight
    # The layer at work, where it is computed again.
    again = 0.0
    if work.checkpointing != "off":
        again = work.micro_tokens * kept_bytes(work, "off", 2, float8)
    activations = (kept + again) / layout.tensor
    gathered = _gathered(work, 2)
    scores = min(work.micro_tokens * work.shape.vocab_size, GPU_CHUNK_LOGITS)
    loss = work.shape.width * (work.micro_tokens * 2 + 4 * work.shape.vocab_size)
    held = 2 * weights + moments + gathered + activations
    return Memory(
        weights=weights,
        gradients=weights,
        optimizer=moments,
        gathered=gathered,
        activations=activations,
        logits=8 * scores + loss,
        reserve=GPU_CONTEXT_BYTES + FRAGMENTATION * held,
    )


def _of_a_process(work: Work) -> Memory:
    """Gives the peak resident memory of a process that trains on a processor."""
    shape, tokens = work.shape, work.micro_tokens
    layer, kept = kept_bytes(work, "off", 4), kept_bytes(work, work.checkpointing, 4)
    if not work.settings.compile:
        # Every result of every operation.
        numbers = 6 * shape.width + 6 * shape.attention_width + 4 * shape.kv_width
        layer = 4 * (numbers + 5 * work.inner_width)
        kept = layer if work.checkpointing == "off" else kept
    elif work.checkpointing == "off":
        # Each compiled layer keeps the mask of documents as numbers.
        kept += 4 * shape.context
    again = 0.0 if work.checkpointing == "off" else layer
    weights, moments = _held(work)
    return Memory(
        weights=weights,
        gradients=weights,
        optimizer=moments,
        gathered=_gathered(work, 4),
        activations=tokens * (work.stage_layers * kept + again) * CPU_KEPT,
        logits=4 * shape.width * (tokens + shape.vocab_size) * CPU_LOSS,
        reserve=PROCESS_BYTES + CPU_LAYER * layer * tokens,
    )


def _held(work: Work) -> tuple[float, float]:
    """Gives the bytes of a device's part of the weights, and of their moments."""
    whole, hidden = work.stage_parameters()
    of_hidden = 4 if work.settings.optimizer == "muon" else 8
    moments = 8 * (whole - hidden) + of_hidden * hidden
    return 4 * whole / work.layout.cut, moments / work.layout.cut


def _gathered(work: Work, each: int) -> float:
    """Gives the bytes of weights that are whole, or rounded, for a while.

    Args:
        work: what a step is.
        each: bytes of a number in a product.
    """
    whole, hidden = work.stage_parameters()
    ends = whole - hidden
    if work.layout.pipeline > 1:
        # Put together, and with gradients of their own, from the first micro-batch to the last.
        return whole * (each + 4)
    if work.layout.cut > 1:
        # Two layers ahead of the work, one layer's gradients before they are added up, and the
        # ends, which stay whole.
        layer = work.layer_parameters()
        return 2 * layer * each + layer * (each + 4) + ends * (2 * each + 4)
    if each == 4:
        return 0.0
    # In 8 bits weights are rounded product by product.
    return (ends if work.settings.float8 else whole) * each


def kept_bytes(work: Work, checkpointing: str, each: int, float8: bool = False) -> float:
    """Gives the bytes that a compiled layer keeps of a token for the backward pass.

    Counted from what autograd saves of a compiled layer.

    Args:
        work: what a step is.
        checkpointing: `off`, `selective` or `full`.
        each: bytes of a number.
        float8: what products take is kept in 8 bits.
    """
    shape, inner = work.shape, work.inner_width
    width, heads, kv = shape.width, shape.attention_width, shape.kv_width
    if checkpointing == "full":
        return width * each
    # Keys and values of those who share the row.
    gathered = 2 * kv * work.layout.context if work.layout.context > 1 else 0
    if checkpointing == "selective":
        numbers = 2 * width + 2 * heads + 2 * kv + 2 * inner + gathered
        return numbers * each + 4 * shape.num_heads
    # An expert's rows are kept for each that a token passes through.
    rows = 2 * shape.experts_per_token * width
    numbers = 4 * width + 4 * heads + 3 * kv + 3 * inner + rows + gathered
    scales = 2 + 2 * shape.num_heads + shape.num_kv_heads + 2 * shape.num_experts
    spared = (2 * width + heads + inner) * (each - 1) if float8 else 0
    return numbers * each + 4 * scales - spared
