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
    # Of a pipeline the first has most under way, the last the loss, the second perhaps more layers.
    last = work.layout.pipeline - 1
    moments = [at for device in {0, min(1, last), last} for at in _moments(work, device)]
    return max(moments, key=lambda memory: memory.total)


def _moments(work: Work, device: int) -> list[Memory]:
    """Gives what a device of a pipeline holds at the moments at which it may hold most."""
    layout, tokens = work.layout, work.micro_tokens
    weights, optimizer = _held(work, device)
    whole, hidden = work.stage_parameters(device)
    ends, layer, table = whole - hidden, work.layer_parameters(), work.table_parameters
    kept, again = _activations(work, device)
    scores = min(tokens * work.shape.vocab_size / layout.tensor, GPU_CHUNK_LOGITS)
    is_last = device == layout.pipeline - 1
    # Compiled, fewer copies of the scores are there at once.
    copies = 8 if work.settings.compile else 11
    loss = 4 * tokens * work.shape.width + 6 * table + copies * scores if is_last else 0.0

    def memory(gradients: float, gathered: float, activations: float, logits: float) -> Memory:
        held = weights + optimizer + gradients + gathered + activations
        reserve = GPU_CONTEXT_BYTES + FRAGMENTATION * held
        return Memory(weights, gradients, optimizer, gathered, activations, logits, reserve)

    if layout.pipeline > 1:
        # Put together, and with gradients of their own, from the first micro-batch to the last.
        together, _ = work.together_parameters(device)
        return [
            memory(4 * together, 2 * together + 2 * layer, kept + again, 0.0),
            memory(4 * together, 2 * together, kept, loss),
        ]
    # Of several micro-batches all but the first find gradients.
    before = weights if work.micro_batches > 1 else 0.0
    if layout.cut == 1:
        rounded = 2 * (ends if work.settings.float8 else whole)
        first = memory(weights, rounded, kept / work.stage_layers + again, 0.0)
        return [
            memory(before, rounded, kept, loss),
            memory(before, rounded, kept + again, 0.0),
            first,
        ]
    # Ends stay put together, and the output layer's gradient with them; of layers two are, because
    # the next one travels ahead, and one's gradients before they are added up.
    with_head = 2 * ends + 2 * table
    # Experts that are cut by themselves come and go by themselves.
    routed = work.routed_parameters() if layout.spread_experts else 0.0
    travelling = with_head + layer * (2 + 2 + 4) - routed * 4
    return [
        memory(before, 2 * ends, kept, loss),
        memory(before, with_head + layer * (2 + 2 + 2), kept + again, 0.0),
        memory(before, travelling, kept * (1 - 1 / work.stage_layers) + again, 0.0),
        memory(weights, travelling, kept / work.stage_layers + again, 0.0),
    ]


def _activations(work: Work, device: int) -> tuple[float, float]:
    """Gives the bytes that are kept for the backward pass, and those of the layer at work."""
    checkpointing, float8 = work.checkpointing, work.settings.float8
    compiled = work.settings.compile
    each_layer = kept_bytes(work, checkpointing, 2, float8) if compiled else _eager(work)
    kept = work.micro_tokens * work.layers_of(device) * each_layer
    again = 0.0
    if checkpointing != "off":
        layer = kept_bytes(work, "off", 2, float8) if compiled else _eager(work, "off")
        # What is kept of it is not computed again.
        again = work.micro_tokens * (layer - each_layer)
    if not compiled:
        # What passes backward through the feed-forward layer, and rows on their way to experts.
        travelling = work.shape.experts_per_token * work.shape.width
        backward = 4 * work.inner_width + travelling * (4 if work.layout.expert > 1 else 2)
        again += work.micro_tokens * backward / work.layout.tensor
    return kept * work.in_flight(device), again


def _eager(work: Work, checkpointing: str | None = None) -> float:
    """Gives the bytes that a layer that is not compiled keeps of a token in bfloat16.

    Counted from what autograd saves.

    Args:
        work: what a step is.
        checkpointing: as in the settings when not given.
    """
    shape, inner, tensor = work.shape, work.inner_width, work.layout.tensor
    width, heads, kv = shape.width, shape.attention_width, shape.kv_width
    mode = checkpointing or work.checkpointing
    if mode == "full":
        return 2 * width / tensor
    # Of keys and values of those who share the row.
    gathered = 4 * kv * work.layout.context if work.layout.context > 1 else 0
    if mode == "selective":
        # What products give before the ranks add it up is of full width.
        shared = 2 * width + 4 * heads + 4 * kv + 4 * inner + gathered + 4 * shape.num_heads
        return 4 * width + shared / tensor
    if shape.sparse_layers:
        rows = 4 * shape.experts_per_token * width
        streams = 2 * width + (20 * width + rows) / tensor
    else:
        # What is gathered before products is of full width.
        streams = 4 * width + 16 * width / tensor
    ratios = 8 * shape.num_heads + 4 * shape.num_kv_heads
    return streams + (16 * heads + 14 * kv + 8 * inner + ratios + gathered) / tensor


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
    # What is kept of a layer is not computed again.
    again = 0.0 if work.checkpointing == "off" else layer - kept
    weights, moments = _held(work, None)
    return Memory(
        weights=weights,
        gradients=weights,
        optimizer=moments,
        gathered=_gathered(work),
        activations=tokens * (work.stage_layers * kept * work.in_flight(0) + again) * CPU_KEPT,
        logits=4 * shape.width * (tokens + shape.vocab_size) * CPU_LOSS,
        reserve=PROCESS_BYTES + CPU_LAYER * layer * tokens,
    )


def _held(work: Work, device: int | None) -> tuple[float, float]:
    """Gives the bytes of a device's part of the weights, and of their moments."""
    whole, hidden = work.stage_parameters(device)
    of_hidden = 4 if work.settings.optimizer == "muon" else 8
    moments = 8 * (whole - hidden) + of_hidden * hidden
    return 4 * whole / work.layout.cut, moments / work.layout.cut


def _gathered(work: Work) -> float:
    """Gives the bytes of weights that are whole for a while on a processor."""
    whole, hidden = work.stage_parameters()
    if work.layout.pipeline > 1:
        # Put together, and with gradients of their own, from the first micro-batch to the last.
        return 8 * work.together_parameters()[0]
    if work.layout.cut == 1:
        return 0.0
    # Two layers ahead of the work, one layer's gradients before they are added up, and the ends,
    # which stay whole.
    return 16 * work.layer_parameters() + 12 * (whole - hidden)


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
    tensor = work.layout.tensor
    if checkpointing == "full":
        return width * each / tensor
    # Keys and values of those who share the row.
    gathered = 2 * kv * work.layout.context if work.layout.context > 1 else 0
    if checkpointing == "selective":
        numbers = 2 * width + 2 * heads + 2 * kv + 2 * inner + gathered
        return (numbers * each + 4 * shape.num_heads) / tensor
    # An expert's rows are kept for each that a token passes through.
    rows = 2 * shape.experts_per_token * width
    numbers = 4 * width + 4 * heads + 3 * kv + 3 * inner + rows + gathered
    scales = 2 + 2 * shape.num_heads + shape.num_kv_heads + 2 * shape.num_experts
    spared = (2 * width + heads + inner) * (each - 1) if float8 else 0
    # What is gathered before products is of full width.
    whole = 2 * width * each * (1 - 1 / tensor)
    return (numbers * each + 4 * scales - spared) / tensor + whole
