"""Seconds of a step of training by what they are spent on.

A roofline: products at the share of the peak that large ones reach, attention at its kernel's, the
rest at the memory's bandwidth, collectives at the links'; what travels beside the work is hidden by
it. The shares are fitted to the measurements in `benchmarks/measurements.json`, which
`benchmarks/plan.py` compares with what stands here.
"""

from __future__ import annotations

from dataclasses import dataclass

from tianti.scale.hardware import Device
from tianti.scale.work import Work

# Products of layers in 8 bits against 16, as the makers have it.
FLOAT8_GAIN = 2.0
# How often what lies between products is read or written besides for 8 bits.
FLOAT8_PASSES = 18
# For a message to get to the next device of a ring.
HOP_SECONDS = 6e-6
# What Newton–Schulz products reach of large ones.
ORTHOGONALIZING = 0.6


@dataclass(frozen=True)
class Shares:
    """What a kind of device reaches.

    Args:
        attention: of the speed of products.
        memory: of what its maker or copying says.
        links: of what their maker says.
        inner: how often each number of inner width is read or written between products, there and
            back.
        stream: the same by the widths of stream and heads.
        scores: the same of the vocabulary's scores.
        each: bytes of a number.
    """

    attention: float
    memory: float
    links: float
    inner: float
    stream: float
    scores: float
    each: int


GPU_SHARES = Shares(0.45, 0.89, 0.6, 12, 70, 0, 2)
CPU_SHARES = Shares(0.58, 1.0, 0.6, 24, 60, 17.7, 4)


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step by what they are spent on.

    Args:
        products: matrix products of the network, what is computed again among them.
        attention: scores and what they gather.
        memory: everything between the products.
        optimizer: the update.
        tensor: collectives within layers, which nothing hides.
        exposed: collectives of weights and gradients that the work does not hide.
        bubble: stages that wait for others.
    """

    products: float
    attention: float
    memory: float
    optimizer: float
    tensor: float = 0.0
    exposed: float = 0.0
    bubble: float = 0.0

    @property
    def total(self) -> float:
        """Gives all together."""
        return sum(vars(self).values())


def shares_of(device: Device) -> Shares:
    """Gives what a device reaches."""
    return CPU_SHARES if device.kind == "cpu" else GPU_SHARES


def step_time(work: Work, device: Device, sent: dict[str, float]) -> StepTime:
    """Gives the seconds of a step.

    Args:
        work: what a step is.
        device: that each has.
        sent: what a device sends in it; see `bytes_sent`.
    """
    shape, layout, shares = work.shape, work.layout, shares_of(device)
    again = 4 / 3 if work.checkpointing == "full" else 1.0
    peak = device.bf16_tflops * 1e12 * device.products
    # Each stage has its share of the layers; the last one has the head besides.
    tokens = work.rows * shape.context / layout.context
    share = work.stage_layers / shape.depth / layout.tensor
    float8 = work.settings.float8 and device.float8_tflops is not None
    hidden = 6 * shape.matrix_parameters(active=True) * share * again
    hidden /= FLOAT8_GAIN if float8 else 1.0
    head = 6 * shape.vocab_size * shape.width / layout.tensor
    products = tokens * (hidden + head / layout.pipeline) / peak
    scores = 6 * shape.depth * shape.attention_width * shape.context * share * again
    attention = tokens * scores / (peak * (device.attention or shares.attention))
    # What lies between products is computed again in either form, products in one alone.
    moved_again = 1.0 if work.checkpointing == "off" else 4 / 3
    moved = share * shape.depth * moved_again * _moved_bytes(work, shares, float8)
    moved += shares.each * shares.scores * shape.vocab_size / layout.tensor / layout.pipeline
    memory = tokens * moved / (device.memory_gbps * 1e9 * shares.memory)
    worked = products + attention + memory
    tensor = sent["tensor"] / (device.bandwidth(layout.tensor) * shares.links)
    idle = 0.0
    if layout.pipeline > 1:
        idle = (layout.pipeline - 1) / (work.micro_batches * layout.stages) * (worked + tensor)
    return StepTime(
        products=products,
        attention=attention,
        memory=memory,
        optimizer=_optimizer_seconds(work, device, peak, shares),
        tensor=tensor,
        exposed=_exposed(work, device, sent, worked, shares.links),
        bubble=idle,
    )


def _moved_bytes(work: Work, shares: Shares, float8: bool) -> float:
    """Gives the bytes that a layer moves for a token between its products, there and back."""
    shape, inner = work.shape, work.inner_width
    across = shape.width + shape.attention_width + shape.kv_width
    sorted_rows = 8 * shape.experts_per_token * shape.width
    moved = shares.inner * inner + shares.stream * across + sorted_rows
    # The largest number is looked for, then all are rounded, there and back.
    return shares.each * (moved + (FLOAT8_PASSES * (across + inner) if float8 else 0))


def _optimizer_seconds(work: Work, device: Device, peak: float, shares: Shares) -> float:
    whole, hidden = work.stage_parameters()
    layout, shape = work.layout, work.shape
    # Read weight, gradient and moments, write weight and moments.
    seconds = 28 * whole / layout.cut / (device.memory_gbps * 1e9 * shares.memory)
    if work.settings.optimizer == "muon":
        # Five iterations of three products with the short side, shared out among the ranks.
        short = min(shape.width, shape.expert_width or shape.mlp_width)
        ranks = layout.cut * layout.replicate
        reached = peak * (device.orthogonalizing or ORTHOGONALIZING)
        seconds += 20 * hidden * short / ranks / reached
    return seconds


def bytes_sent(work: Work, each: int) -> dict[str, float]:
    """Gives the bytes that a device sends in a step, by what they are.

    Args:
        work: what a step is.
        each: bytes of a number in a product.
    """
    shape, layout = work.shape, work.layout
    whole, _ = work.stage_parameters()
    passes = work.micro_batches
    # A pipeline keeps its weights together over the micro-batches.
    together = passes if layout.pipeline == 1 else 1
    again = 1 if work.checkpointing == "full" else 0
    # What the layers of a stage have of a stream of one width, over all micro-batches.
    flow = work.micro_tokens * each * passes * work.stage_layers
    keys = flow * layout.context * 2 * shape.kv_width / layout.tensor
    routed = flow * shape.width * shape.experts_per_token / layout.tensor
    every, routed_weights = work.together_parameters()
    # Experts are cut over fewer devices, because each has some of them alone.
    among = layout.cut * layout.tensor / layout.expert if layout.spread_experts else layout.cut
    travelling = (every - routed_weights) * _others(layout.cut) + routed_weights * _others(among)
    between = flow / work.stage_layers * shape.width * 2 * layout.stages / layout.tensor
    return {
        "weights": travelling * each * 2 * together,
        "gradients": travelling * 4 * together,
        "copies": 8 * whole / layout.cut * _others(layout.replicate),
        # Attention and feed-forward each gather before and scatter after, there and back.
        "tensor": flow * shape.width * _others(layout.tensor) * (8 + 4 * again),
        "context": keys * _others(layout.context) * (3 + again),
        "expert": routed * _others(layout.expert) * (4 + 2 * again),
        "pipeline": between if layout.pipeline > 1 else 0.0,
    }


def _others(degree: float) -> float:
    """Gives the share of a whole that others hold."""
    return (degree - 1) / degree


def _exposed(
    work: Work, device: Device, sent: dict[str, float], worked: float, links: float
) -> float:
    """Gives the seconds of collectives that the work does not hide."""
    layout = work.layout
    near = layout.tensor * layout.context
    span = near * layout.shard

    def seconds(kind: str, devices: int) -> float:
        return sent[kind] / (device.bandwidth(devices) * links)

    # Rings grow with who is in them; of weights each layer has one there and two back.
    rings = 3 * work.stage_layers * (layout.cut - 1) * HOP_SECONDS
    rings *= work.micro_batches if layout.pipeline == 1 else 1
    cut = seconds("weights", span) + seconds("gradients", span) + rings
    copies = seconds("copies", span * layout.replicate)
    # Copies travel after the last backward pass of each layer; of those half is hidden by it.
    hidden = worked / work.micro_batches / 2
    never = seconds("pipeline", layout.devices) + seconds("expert", layout.expert)
    # Attention waits for keys and values.
    never += seconds("context", near)
    return max(0.0, cut - worked) + max(0.0, copies - hidden) + never
