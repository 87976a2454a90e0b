"""Layers cut into stages on several ranks (pipeline parallelism), by PyTorch's schedules.

Micro-batches pass through the stages one behind the other, forward and backward in turn (1F1B,
Narayanan et al. 2019); with several stages on each rank the waiting at both ends is shorter, and
more travels (interleaved 1F1B, Narayanan et al. 2021, arXiv:2104.04473).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B

from tianti.model.attention import Columns
from tianti.model.transformer import Transformer
from tianti.objective.causal import CausalLoss, Rows
from tianti.scale.layout import Layout, stage_layers
from tianti.train.loss import TrainLoss


class Stage(Transformer):
    """Some layers of a network, with what belongs to its ends.

    Args:
        whole: the network, whose modules and buffers it has in common.
        layers: that it has.
        first: ids go in, else the stream.
        last: the final stream comes out, to be made logits of.

    Attributes:
        columns: the tokens of a row that are computed here, where others have the rest.
    """

    columns: Columns | None = None
    loss: TrainLoss

    def __init__(self, whole: Transformer, layers: range, first: bool, last: bool):
        nn.Module.__init__(self)
        self.config, self.block_masks = whole.config, whole.block_masks
        self.first, self.last = first, last
        if first or (last and whole.head is None):
            self.embedding = whole.embedding
        self.positions = whole.positions if first else None
        self.layers = nn.ModuleList([whole.layers[index] for index in layers])
        self.final_norm = whole.final_norm if last else nn.Identity()  # type: ignore[assignment]
        self.head = whole.head if last else None
        self.head_adapter = whole.head_adapter if last else None
        # Filled and moved there.
        self._buffers = whole._buffers

    def forward(self, x: Tensor, *, segments_BT: Tensor) -> Tensor:  # type: ignore[override]
        """Gives the stream after these layers.

        Args:
            x: ids or stream.
            segments_BT: see `Transformer.forward`.
        """
        begin: dict[str, Any] = {"ids_BT" if self.first else "embeddings_BTW": x}
        with self.loss.autocast():
            return super().forward(**begin, segments_BT=segments_BT, columns=self.columns)


class Pipeline:
    """This rank's stages, and how they work with those of others.

    Args:
        layout: of all.
        group: the ranks that have the other stages, in order.
        device: that this rank computes on.
        dtype: of the stream between layers.
    """

    def __init__(
        self, layout: Layout, group: dist.ProcessGroup, device: torch.device, dtype: torch.dtype
    ):
        self._layout, self._group, self._device, self._dtype = layout, group, device, dtype
        self._number, self._count = group.rank(), group.size()
        self.total = layout.pipeline * layout.stages
        self.here = range(self._number, self.total, self._count)
        self.stages: dict[int, Stage] = {}
        self._schedules: dict[tuple[int, ...], Any] = {}

    @property
    def last(self) -> bool:
        """Tells whether the last stage is here."""
        return self._number == self._count - 1

    def lay_over(self, model: Transformer) -> None:
        """Cuts stages out of a network, and leaves it no more than theirs."""
        layers = stage_layers(model.config.depth, self.total)
        for number in self.here:
            last = number == self.total - 1
            self.stages[number] = Stage(model, layers[number], number == 0, last)
        kept = {index for number in self.here for index in layers[number]}
        for index in range(model.config.depth):
            if index not in kept:
                # Those that stay keep their names.
                del model.layers._modules[str(index)]
        if self._number and not (self.last and model.head is None):
            del model.embedding
        if self._number:
            model.positions = None
        if not self.last:
            model.final_norm = nn.Identity()  # type: ignore[assignment]
            model.head = None

    def add_gradients(self, loss: TrainLoss, parts: list[Rows], total: float) -> Tensor:
        """Adds up gradients; gives the nats, summed, of who has the last stage; see `Ranks`."""
        nats = torch.zeros((), dtype=torch.float64, device=self._device)
        self._set(loss, parts[0].columns)
        schedule = self._schedule(parts)

        def loss_of(stream: Tensor, labels: Tensor) -> Tensor:
            nonlocal nats
            found = loss.of_stream(stream, self.stages[self.total - 1].output_weight, labels)
            nats += found.nats
            return found.total / total

        schedule._loss_fn = loss_of
        ids, labels, segments = (
            torch.cat([getattr(rows, name) for rows in parts])
            for name in ("ids_BT", "labels_BT", "segments_BT")
        )
        begin = (ids,) if 0 in self.stages else ()
        end = {"target": labels, "losses": []} if self.last else {}
        schedule.step(*begin, **end, segments_BT=segments, return_outputs=False)
        return nats

    @torch.no_grad()
    def evaluate(self, loss: TrainLoss, rows: Rows) -> CausalLoss:
        """Gives the loss of some rows, of who has the last stage; of others zero."""
        self._set(loss, rows.columns)
        found = torch.zeros((), device=self._device)
        for number, stage in self.stages.items():
            x = rows.ids_BT
            if number:
                x = self._stream(rows, stage)
                dist.recv(x, group=self._group, group_src=(number - 1) % self._count)
            x = stage(x, segments_BT=rows.segments_BT)
            if number == self.total - 1:
                return loss.of_stream(x, stage.output_weight, rows.labels_BT)
            dist.send(x.contiguous(), group=self._group, group_dst=(number + 1) % self._count)
        return CausalLoss(found, found, found)

    def share_ends(self, gradient: Tensor) -> None:
        """Adds up the gradients of a tied embedding, which the first and the last stage have."""
        if self._number not in (0, self._count - 1):
            return
        other = self._count - 1 - self._number
        theirs = torch.empty_like(gradient)
        send = dist.P2POp(dist.isend, gradient, group=self._group, group_peer=other)
        receive = dist.P2POp(dist.irecv, theirs, group=self._group, group_peer=other)
        for work in dist.batch_isend_irecv([send, receive]):
            work.wait()
        gradient += theirs

    def _set(self, loss: TrainLoss, columns: Columns | None) -> None:
        for stage in self.stages.values():
            stage.loss, stage.columns = loss, columns

    def _stream(self, rows: Rows, stage: Stage) -> Tensor:
        batch, time = rows.ids_BT.shape
        shape = batch, time // self._layout.tensor, stage.config.width
        return torch.empty(shape, dtype=self._dtype, device=self._device)

    def _schedule(self, parts: list[Rows]) -> Any:
        shape = (len(parts), *parts[0].ids_BT.shape)
        if shape not in self._schedules:
            stages: list[Any] = [
                self._wrapped(stage, number, parts[0]) for number, stage in self.stages.items()
            ]
            options: dict[str, Any] = {"loss_fn": torch.sum, "scale_grads": False}
            if self._layout.stages == 1:
                self._schedules[shape] = Schedule1F1B(stages[0], len(parts), **options)
            else:
                self._schedules[shape] = ScheduleInterleaved1F1B(stages, len(parts), **options)
        return self._schedules[shape]

    def _wrapped(self, stage: Stage, number: int, rows: Rows) -> PipelineStage:
        stream = self._stream(rows, stage).requires_grad_()
        # Of the final stream each has all tokens.
        final = stream.new_empty(*rows.ids_BT.shape, stage.config.width)
        return PipelineStage(
            stage,
            number,
            self.total,
            self._device,
            input_args=(rows.ids_BT if stage.first else stream,),
            output_args=(final if stage.last else stream,),
            group=self._group,
        )
