"""What one step of training takes in a layout: memory by kind, and time by what it is spent on.

A roofline: products at the share of the peak that large ones reach, attention at its kernel's, the
rest at the memory's bandwidth, collectives at the links'; what travels beside the work is hidden by
it. The shares are fitted to the measurements in `benchmarks/measurements.json`, which
`benchmarks/plan.py` compares with what stands here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tianti.messages import tr
from tianti.model.config import TransformerConfig
from tianti.objective.chunks import GPU_CHUNK_LOGITS
from tianti.scale.hardware import Device
from tianti.train.config import TrainSettings

GIB = 2**30
# Chunks of layers that each stage of a pipeline holds (Narayanan et al. 2021, arXiv:2104.04473).
INTERLEAVED = 2
# What is allocated and in no piece large enough for what is asked for.
FRAGMENTATION = 0.04
# CUDA's context and NCCL's buffers.
GPU_CONTEXT_BYTES = 1.6 * GIB
# Products of layers in 8 bits against 16, as the makers have it.
FLOAT8_GAIN = 2.0
# How often what lies between products is read or written besides for 8 bits.
FLOAT8_PASSES = 18


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
    """

    attention: float
    memory: float
    links: float
    inner: float
    stream: float
    scores: float


GPU_SHARES = Shares(0.45, 0.89, 0.6, 12, 70, 0)
CPU_SHARES = Shares(0.58, 1.0, 0.6, 24, 60, 17.7)
# A processor: what a process holds besides; how much of what is kept, of one layer's, and of the
# loss' gradients the C library has in use at the peak. Fitted to 18 trainings of a few steps.
CPU_BASE_BYTES = 535e6
CPU_KEPT, CPU_LAYER, CPU_LOSS = 1.07, 0.67, 4.6
# What a device's Newton–Schulz products reach of large ones.
ORTHOGONALIZING = 0.6


@dataclass(frozen=True)
class Degrees:
    """How work is split among devices, whose number is the product of all but `expert`.

    Args:
        replicate: copies that share a batch.
        shard: devices over which weights, gradients and optimizer of a copy are cut.
        context: devices that share the tokens of a row; weights are cut over these too.
        tensor: devices that share each product of a layer.
        pipeline: stages of layers.
        expert: of the devices of `shard` and `context`, those that share the experts.
    """

    replicate: int = 1
    shard: int = 1
    context: int = 1
    tensor: int = 1
    pipeline: int = 1
    expert: int = 1

    @property
    def devices(self) -> int:
        """Gives the number of all."""
        return self.replicate * self.shard * self.context * self.tensor * self.pipeline

    @property
    def cut(self) -> int:
        """Gives over how many devices weights are cut."""
        return self.shard * self.context

    def describe(self) -> str:
        """Gives the degrees above 1 in a few words."""
        parts = [f"{name} {value}" for name, value in vars(self).items() if value > 1]
        return " × ".join(parts) or tr("one device")


@dataclass(frozen=True)
class Work:
    """What a step is, in a layout.

    Args:
        shape: the network.
        settings: of training; rows at once and checkpointing are this work's own.
        degrees: the layout.
        micro_rows: rows that a device computes at once.
        checkpointing: `off`, `selective` or `full`.
    """

    shape: TransformerConfig
    settings: TrainSettings
    degrees: Degrees
    micro_rows: int
    checkpointing: str

    @property
    def rows(self) -> int:
        """Gives the rows of a step that share one copy's weights at a time."""
        return self.settings.batch_rows // (self.degrees.replicate * self.degrees.shard)

    @property
    def micro_batches(self) -> int:
        """Gives the micro-batches of a step."""
        return -(-self.rows // self.micro_rows)

    @property
    def micro_tokens(self) -> float:
        """Gives the tokens of a micro-batch that one device's attention computes."""
        return self.micro_rows * self.shape.context / self.degrees.context

    @property
    def stage_layers(self) -> int:
        """Gives the layers of the longest stage."""
        return -(-self.shape.depth // self.degrees.pipeline)


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
        reserve: context, buffers of collectives, fragmentation.
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


@dataclass(frozen=True)
class Estimate:
    """Memory and time of some work on some devices.

    Args:
        work: what.
        device: on which.
        memory: of the fullest device.
        seconds: of a step.
        sent: bytes that a device sends in a step, by what they are.
    """

    work: Work
    device: Device
    memory: Memory
    seconds: StepTime
    sent: dict[str, float] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Tells whether a device holds it."""
        return self.memory.total <= self.device.memory

    @property
    def tokens_per_second(self) -> float:
        """Gives the tokens a second of all devices."""
        return self.work.settings.batch_rows * self.work.shape.context / self.seconds.total

    @property
    def mfu(self) -> float:
        """Gives the share of the peak in bfloat16; of a CPU, in the precision of training."""
        flops = self.work.shape.flops_per_token() * self.tokens_per_second
        return flops / (self.device.bf16_tflops * 1e12 * self.work.degrees.devices)


def estimate(work: Work, device: Device) -> Estimate:
    """Gives what a step takes."""
    seconds, sent = _step_time(work, device)
    return Estimate(work, device, _memory(work, device), seconds, sent)


def _layer_parameters(shape: TransformerConfig, tensor: int, expert: int) -> float:
    """Gives the weights of the heaviest layer that a device computes with."""
    dense = 3 * shape.width * shape.mlp_width
    one = 3 * shape.width * shape.expert_width
    sparse = shape.num_experts / expert * one + shape.shared_experts * one
    feedforward = max(dense if shape.sparse_layers < shape.depth else 0, sparse)
    return (shape.attention_parameters() + feedforward) / tensor + 2 * shape.width


def _stage_parameters(work: Work) -> tuple[float, float]:
    """Gives the weights of the fullest stage on one device before they are cut, and of these those
    that Muon moves."""
    shape, degrees = work.shape, work.degrees
    hidden = shape.matrix_parameters() / shape.depth * work.stage_layers / degrees.tensor
    # Experts lie apart already where devices share them; cut, all have the same part.
    table = shape.vocab_size * shape.width / degrees.tensor
    ends = table * (1 if shape.tied_embeddings or degrees.pipeline > 1 else 2)
    return hidden + ends + 2 * work.stage_layers * shape.width, hidden


def _memory(work: Work, device: Device) -> Memory:
    shape, degrees, settings = work.shape, work.degrees, work.settings
    gpu = device.kind != "cpu"
    half = 2 if gpu else 4
    float8 = settings.float8 and gpu
    whole, hidden = _stage_parameters(work)
    weights = 4 * whole / degrees.cut
    moments = (8 * (whole - hidden) + (4 if settings.optimizer == "muon" else 8) * hidden) / (
        degrees.cut
    )
    layer = _layer_parameters(shape, degrees.tensor, degrees.expert)
    ends = whole - hidden
    if degrees.cut > 1:
        # Two layers ahead of the work, one layer's gradients before they are added up, and the
        # ends, which stay whole.
        gathered = 2 * layer * half + layer * (half + 4) + ends * (2 * half + 4)
    else:
        # In 8 bits weights are rounded product by product.
        gathered = (whole - hidden if float8 else whole) * half if gpu else 0.0
    if not gpu:
        return _processor_memory(work, weights, moments, gathered)
    in_flight = min(work.micro_batches, degrees.pipeline)
    kept = (
        work.micro_tokens * work.stage_layers * kept_bytes(shape, work.checkpointing, half, float8)
    )
    if degrees.pipeline > 1:
        kept *= in_flight * (1 + (degrees.pipeline - 1) / (degrees.pipeline * INTERLEAVED))
    # The layer at work, where it is computed again.
    again = 0.0
    if work.checkpointing != "off":
        again = work.micro_tokens * kept_bytes(shape, "off", half, float8)
    activations = (kept + again) / degrees.tensor
    held = weights * 2 + moments + gathered + activations
    return Memory(
        weights=weights,
        gradients=weights,
        optimizer=moments,
        gathered=gathered,
        activations=activations,
        logits=_logits(work),
        reserve=GPU_CONTEXT_BYTES + FRAGMENTATION * held,
    )


def _processor_memory(work: Work, weights: float, moments: float, gathered: float) -> Memory:
    """Gives the peak resident memory of a process that trains on a processor."""
    shape, tokens = work.shape, work.micro_tokens
    layer = kept_bytes(shape, "off", 4)
    kept = kept_bytes(shape, work.checkpointing, 4)
    if not work.settings.compile:
        # Every result of every operation.
        numbers = 6 * shape.width + 6 * shape.attention_width + 4 * shape.kv_width
        layer = 4 * (numbers + 5 * shape.mlp_width)
        kept = layer if work.checkpointing == "off" else kept
    elif work.checkpointing == "off":
        # Each compiled layer keeps the mask of documents as numbers.
        kept += 4 * shape.context
    again = 0.0 if work.checkpointing == "off" else layer
    activations = tokens * (work.stage_layers * kept + again) * CPU_KEPT
    loss = 4 * shape.width * (tokens + shape.vocab_size) * CPU_LOSS
    reserve = CPU_BASE_BYTES + CPU_LAYER * layer * tokens
    return Memory(weights, weights, moments, gathered, activations, loss, reserve)


def _logits(work: Work) -> float:
    """Gives the memory of the loss: a chunk of scores, and the gradients it keeps until then."""
    shape = work.shape
    scores = min(work.micro_tokens * shape.vocab_size, GPU_CHUNK_LOGITS)
    return 8 * scores + shape.width * (work.micro_tokens * 2 + 4 * shape.vocab_size)


def kept_bytes(
    shape: TransformerConfig, checkpointing: str, each: int, float8: bool = False
) -> float:
    """Gives the bytes that a compiled layer keeps of a token for the backward pass.

    Counted from what autograd saves of a compiled layer.

    Args:
        shape: the network.
        checkpointing: `off`, `selective` or `full`.
        each: bytes of a number.
        float8: what products take is kept in 8 bits.
    """
    width, heads, kv = shape.width, shape.attention_width, shape.kv_width
    if checkpointing == "full":
        return width * each
    # An expert's rows are kept for each that a token passes through.
    passed = shape.experts_per_token if shape.sparse_layers else 0
    inner = passed * shape.expert_width + shape.shared_experts * shape.expert_width
    inner = inner if passed else shape.mlp_width
    if checkpointing == "selective":
        numbers = 2 * width + 2 * heads + 2 * kv + 2 * inner
        return numbers * each + 4 * shape.num_heads
    numbers = 4 * width + 4 * heads + 3 * kv + 3 * inner + 2 * passed * width
    scales = 2 + 2 * shape.num_heads + shape.num_kv_heads + 2 * shape.num_experts
    spared = (2 * width + heads + inner) * (each - 1) if float8 else 0
    return numbers * each + 4 * scales - spared


def _step_time(work: Work, device: Device) -> tuple[StepTime, dict[str, float]]:
    shape, degrees, settings = work.shape, work.degrees, work.settings
    again = 4 / 3 if work.checkpointing == "full" else 1.0
    peak = device.bf16_tflops * 1e12 * device.products
    # Each stage has its share of the layers; the last one has the head besides.
    tokens = work.rows * shape.context / degrees.context
    share = work.stage_layers / shape.depth / degrees.tensor
    gain = FLOAT8_GAIN if settings.float8 and device.float8_tflops else 1.0
    hidden = 6 * shape.matrix_parameters(active=True) * share * again / gain
    head = 6 * shape.vocab_size * shape.width / degrees.tensor
    products = tokens * (hidden + head / degrees.pipeline) / peak
    scores = 6 * shape.depth * shape.attention_width * shape.context * share * again
    shares = CPU_SHARES if device.kind == "cpu" else GPU_SHARES
    attention = tokens * scores / (peak * shares.attention)
    # What lies between products is computed again in either form, products in one alone.
    moved_again = 1.0 if work.checkpointing == "off" else 4 / 3
    memory = tokens * share * shape.depth * moved_again * _moved_bytes(shape, device, gain > 1)
    memory += tokens * 4 * shares.scores * shape.vocab_size / degrees.tensor / degrees.pipeline
    memory /= device.memory_gbps * 1e9 * shares.memory
    optimizer = _optimizer_seconds(work, device, peak)
    sent = _sent(work)
    tensor = sent["tensor"] / (device.bandwidth(degrees.tensor) * shares.links)
    worked = products + attention + memory
    expert = sent["expert"] / (device.bandwidth(degrees.tensor * degrees.expert) * shares.links)
    exposed = _exposed(work, device, sent, worked, shares.links) + expert
    idle = 0.0
    if degrees.pipeline > 1:
        idle = (degrees.pipeline - 1) / (work.micro_batches * INTERLEAVED) * (worked + tensor)
    return StepTime(products, attention, memory, optimizer, tensor, exposed, idle), sent


def _moved_bytes(shape: TransformerConfig, device: Device, float8: bool) -> float:
    """Gives the bytes that a layer moves for a token between its products, there and back."""
    passed = shape.experts_per_token + shape.shared_experts if shape.sparse_layers else 0
    inner = passed * shape.expert_width or shape.mlp_width
    sorted_rows = 8 * shape.experts_per_token * shape.width if shape.sparse_layers else 0
    across = shape.width + shape.attention_width + shape.kv_width
    each, shares = (4, CPU_SHARES) if device.kind == "cpu" else (2, GPU_SHARES)
    moved = (shares.inner * inner + shares.stream * across + sorted_rows) * each
    # The largest number is looked for, then all are rounded, there and back.
    return moved + (FLOAT8_PASSES * (across + inner) * each if float8 else 0)


def _optimizer_seconds(work: Work, device: Device, peak: float) -> float:
    whole, hidden = _stage_parameters(work)
    held = whole / work.degrees.cut
    # Read weight, gradient and moments, write weight and moments.
    share = (CPU_SHARES if device.kind == "cpu" else GPU_SHARES).memory
    seconds = 28 * held / (device.memory_gbps * 1e9 * share)
    if work.settings.optimizer == "muon":
        # Five iterations of three products with the short side, shared out among the ranks.
        short = min(work.shape.width, work.shape.expert_width or work.shape.mlp_width)
        ranks = work.degrees.cut * work.degrees.replicate
        seconds += 20 * hidden * short / ranks / (peak * ORTHOGONALIZING)
    return seconds


def _sent(work: Work) -> dict[str, float]:
    """Gives the bytes that a device sends in a step, by what they are."""
    shape, degrees = work.shape, work.degrees
    whole, _ = _stage_parameters(work)
    passes = work.micro_batches
    others = (degrees.cut - 1) / degrees.cut
    # A pipeline keeps its weights together over the micro-batches.
    gathers = 2 * passes if degrees.pipeline == 1 else 2
    adds = passes if degrees.pipeline == 1 else 1
    again = 1 if work.checkpointing == "full" else 0
    stream = work.micro_tokens * shape.width * 2 * passes
    layers = work.stage_layers
    across = (degrees.tensor - 1) / degrees.tensor
    around = (degrees.context - 1) / degrees.context
    kept_apart = (degrees.expert - 1) / degrees.expert
    return {
        "weights": whole * 2 * gathers * others,
        "gradients": whole * 4 * adds * others,
        "copies": 8 * whole / degrees.cut * (degrees.replicate - 1) / degrees.replicate,
        # Attention and feed-forward each gather before and scatter after, there and back.
        "tensor": stream * layers * across * (8 + 4 * again),
        "context": work.micro_tokens
        * degrees.context
        * 4
        * shape.kv_width
        * passes
        * layers
        / degrees.tensor
        * around
        * (3 + again),
        "expert": stream
        * shape.experts_per_token
        * layers
        * kept_apart
        * (4 + 2 * again)
        / degrees.tensor,
        "pipeline": stream * 2 * INTERLEAVED / degrees.tensor if degrees.pipeline > 1 else 0.0,
    }


def _exposed(
    work: Work, device: Device, sent: dict[str, float], worked: float, links: float
) -> float:
    """Gives the seconds of collectives that the work does not hide."""
    degrees = work.degrees
    near = degrees.tensor * degrees.context
    span = near * degrees.shard
    cut = (sent["weights"] + sent["gradients"]) / (device.bandwidth(span) * links)
    around = sent["context"] / (device.bandwidth(near) * links)
    copies = sent["copies"] / (device.bandwidth(span * degrees.replicate) * links)
    # Copies travel after the last backward pass of each layer; of those half is hidden by it.
    hidden_by = worked / work.micro_batches / 2
    stages = sent["pipeline"] / (device.bandwidth(degrees.devices) * links)
    return max(0.0, cut + around - worked) + max(0.0, copies - hidden_by) + stages
