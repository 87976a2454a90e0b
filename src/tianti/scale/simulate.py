"""A step of training on devices that are not here: the same layout code on tensors without memory.

One rank of a world of any size is laid out and does its steps with PyTorch's fake process group,
whose collectives only note that they were called, and fake tensors, which have shapes alone. What
each allocates and sends is added up: the peak of memory as a rank would have it, less what the
device itself needs. Products round to bfloat16 as on a GPU; documents' masks are left out, because
a GPU has none (`tianti.model.attention.document_blocks`).
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.pipelining import schedules
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tianti.model.transformer import Transformer
from tianti.objective import linear_cross_entropy
from tianti.objective.causal import Rows
from tianti.scale.parallel import ManyRanks
from tianti.scale.work import Work
from tianti.train.activations import checkpoint_activations
from tianti.train.loss import TrainLoss
from tianti.train.optimizer import Optimizers


@dataclass(frozen=True)
class Simulated:
    """What a rank of a simulated step has and says.

    Args:
        weights: its part, bytes.
        gradients: of these.
        optimizer: moments.
        peak: of everything at once, the three among it.
        sent: bytes that each kind of collective gives out, by its name.
        calls: how often each is called.
    """

    weights: int
    gradients: int
    optimizer: int
    peak: int
    sent: dict[str, int]
    calls: dict[str, int]


def simulate(work: Work, rank: int = 0) -> Simulated:
    """Gives what one rank does in a step.

    Args:
        work: what a step is; the optimizer is taken as AdamW.
        rank: of it.
    """
    settings = work.settings.model_copy(
        update={"optimizer": "adamw", "precision": "bfloat16", "compile": False}
    )
    device = torch.device("cpu")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_fake_world(work.layout.devices, rank))
        stack.enter_context(_chunks_of_a_gpu())
        stack.enter_context(_pipelines_that_ask_nobody())
        vocabulary = work.shape.vocab_size
        ranks = ManyRanks(work.layout, device, vocabulary, "bfloat16", simulated=True)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        with torch.device("meta"):
            model = Transformer(work.shape)
        checkpoint_activations(model, settings.activation_checkpointing)
        loss = TrainLoss(model, settings, ranks.vocabulary)
        parameters = ranks.lay_out(model, settings.seed)
        for stage in ranks.stages:
            stage._mask = lambda *_: None  # type: ignore[assignment,method-assign]
        optimizers = Optimizers(model, settings, parameters, ranks)
        parts = _rows(work, ranks, device)
        watch, gradients = _Watch(), 0
        with watch:
            for number in range(2):
                if number:
                    watch.start()
                ranks.add_gradients(loss, parts, 1, lambda: None)
                ranks.collect_gradients()
                gradients = _bytes(p.grad for p in parameters.values() if p.grad is not None)
                optimizers.step()
                optimizers.zero_grad()
                ranks.drop_gradients()
        moments = optimizers.state_tensors().values()
        weights = _bytes(parameters.values())
        return Simulated(
            weights,
            gradients,
            _bytes(moments),
            # Moments are made while it watches, weights were there before.
            watch.peak + weights,
            watch.sent,
            dict(watch.calls),
        )


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _rows(work: Work, ranks: ManyRanks, device: torch.device) -> list[Rows]:
    context = work.shape.context
    columns = ranks.columns(context)
    here = context if columns is None else len(columns.here)
    ids, segments = (
        torch.zeros(work.micro_rows, length, dtype=torch.int64, device=device)
        for length in (here, context)
    )
    return [Rows(ids, ids, segments, columns)] * work.micro_batches


@contextlib.contextmanager
def _fake_world(size: int, rank: int) -> Iterator[None]:
    # PyTorch keeps it for tests, and there alone.
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _chunks_of_a_gpu() -> Iterator[None]:
    before = linear_cross_entropy.CHUNK_LOGITS
    linear_cross_entropy.CHUNK_LOGITS = linear_cross_entropy.GPU_CHUNK_LOGITS
    try:
        yield
    finally:
        linear_cross_entropy.CHUNK_LOGITS = before


@contextlib.contextmanager
def _pipelines_that_ask_nobody() -> Iterator[None]:
    """Has stages take the shapes they are told, where they would vote on them (PyTorch 2.13)."""
    schedule: Any = schedules._PipelineSchedule
    vote = getattr(schedule, "_warmup_p2p", None)
    if vote is None:
        yield
        return

    def take(self: Any, stages: list[Any], *arguments: Any) -> None:
        for stage in stages:
            stage._inference_mode = schedules.InferenceMode.STATIC  # type: ignore[attr-defined]

    schedule._warmup_p2p = take
    try:
        yield
    finally:
        schedule._warmup_p2p = vote


class _Watch(TorchDispatchMode):
    """Adds up what operations allocate and let go of, and what collectives give out."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.sent: dict[str, int] = {}
        self.calls: Counter[str] = Counter()
        self._sizes: dict[int, int] = {}
        self._resize: Any = torch.UntypedStorage.resize_

    def __enter__(self) -> Any:
        # FSDP2 lets go of weights that were put together by making their storage empty.
        resize, watch = self._resize, self

        def resized(storage: torch.UntypedStorage, size: int) -> Any:
            found = resize(storage, size)
            watch._change(storage)
            return found

        torch.UntypedStorage.resize_ = resized  # type: ignore[method-assign,assignment]
        return super().__enter__()

    def __exit__(self, *arguments: Any) -> None:
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(*arguments)

    def _change(self, storage: torch.UntypedStorage) -> None:
        if (key := storage._cdata) in self._sizes:
            size = storage.nbytes()
            self.now += size - self._sizes[key]
            self._sizes[key] = size
            self.peak = max(self.peak, self.now)

    def start(self) -> None:
        """Begins the step whose peak is wanted."""
        self.peak = self.now
        self.sent, self.calls = {}, Counter()

    def __torch_dispatch__(
        self, op: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        before = {id(t.untyped_storage()) for t in _tensors((arguments, named))}
        found = op(*arguments, **(named or {}))
        for tensor in _tensors(found):
            storage = tensor.untyped_storage()
            if id(storage) not in before:
                self._add(storage)
        name = op.name() if hasattr(op, "name") else str(op)
        if name.startswith(("c10d::", "_c10d_functional::")) and "wait" not in name:
            kind = name.split("::")[1].rstrip("_")
            self.calls[kind] += 1
            self.sent[kind] = self.sent.get(kind, 0) + _bytes(_tensors((arguments, named)))
        return found

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, functools.partial(self._forget, key))

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]
