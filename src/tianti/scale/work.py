"""One step of training in a layout: what each device has of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tianti.model.config import TransformerConfig
from tianti.scale.layout import ONE_DEVICE, Layout, stage_layers
from tianti.train.config import TrainSettings


@cache
def device_layers(depth: int, pipeline: int, stages: int) -> list[int]:
    """Gives the number of layers of each device of a pipeline.

    Args:
        depth: number of all layers.
        pipeline: number of devices.
        stages: of each.
    """
    sizes = [len(layers) for layers in stage_layers(depth, pipeline * stages)]
    return [sum(sizes[device::pipeline]) for device in range(pipeline)]


@dataclass(frozen=True)
class Work:
    """What a step is, in a layout.

    Args:
        shape: the network.
        settings: of training.
        layout: how devices share it.
    """

    shape: TransformerConfig
    settings: TrainSettings
    layout: Layout = ONE_DEVICE

    @property
    def checkpointing(self) -> str:
        """Gives what is kept for the backward pass: `off`, `selective` or `full`."""
        return self.settings.activation_checkpointing

    @property
    def rows(self) -> int:
        """Gives the rows of a step that share one copy's weights at a time."""
        return max(1, self.settings.batch_rows // self.layout.row_groups)

    @property
    def micro_rows(self) -> int:
        """Gives the rows that a device computes at once."""
        return min(self.settings.micro_batch_rows, self.rows)

    @property
    def micro_batches(self) -> int:
        """Gives the micro-batches of a step."""
        return -(-self.rows // self.micro_rows)

    @property
    def micro_tokens(self) -> float:
        """Gives the tokens of a micro-batch that one device computes."""
        return self.micro_rows * self.shape.context / self.layout.context

    @property
    def stage_layers(self) -> int:
        """Gives the layers of the device that has most."""
        return max(self.layers_of(device) for device in range(self.layout.pipeline))

    def layers_of(self, device: int) -> int:
        """Gives the layers of a device of a pipeline."""
        layout = self.layout
        return device_layers(self.shape.depth, layout.pipeline, layout.stages)[device]

    def in_flight(self, device: int) -> float:
        """Gives of how many micro-batches a device of a pipeline holds the activations at once.

        Args:
            device: number of it among those of the pipeline.
        """
        pipeline, stages = self.layout.pipeline, self.layout.stages
        if stages == 1:
            return min(self.micro_batches, pipeline - device)
        # Narayanan et al. 2021: what is begun before the first of them comes back.
        begun = 2 * (pipeline - device - 1) + (stages - 1) * pipeline + 1
        return min(self.micro_batches * stages, begun) / stages

    @property
    def inner_width(self) -> int:
        """Gives the inner width of all that a token passes through in a feed-forward layer."""
        shape = self.shape
        passed = shape.experts_per_token + shape.shared_experts
        return passed * shape.expert_width if shape.sparse_layers else shape.mlp_width

    def stage_parameters(self, device: int | None = None) -> tuple[float, float]:
        """Gives the weights of a device before they are cut, and of these those in the layers'
        matrices.

        Args:
            device: number of it among those of a pipeline; the one with most when not given.
        """
        shape, layout = self.shape, self.layout
        layers = self.stage_layers if device is None else self.layers_of(device)
        hidden = shape.matrix_parameters() / shape.depth * layers / layout.tensor
        tables = 1 if shape.tied_embeddings or layout.pipeline > 1 else 2
        if device not in (None, 0, layout.pipeline - 1):
            tables = 0
        norms = layers * 2 * (shape.width + shape.head_dim) + shape.width
        return hidden + tables * self.table_parameters + norms, hidden

    @property
    def table_parameters(self) -> float:
        """Gives a device's weights in the embedding, or in the output layer."""
        return self.shape.vocab_size * self.shape.width / self.layout.tensor

    def layer_parameters(self) -> float:
        """Gives the weights of the heaviest layer that a device computes with."""
        shape, layout = self.shape, self.layout
        dense = 3 * shape.width * shape.mlp_width if shape.sparse_layers < shape.depth else 0
        one = 3 * shape.width * shape.expert_width
        # Experts are shared out whole, the rest in parts.
        sparse = shape.shared_experts * one / layout.tensor + self.routed_parameters()
        return shape.attention_parameters() / layout.tensor + max(dense / layout.tensor, sparse)

    def together_parameters(self, device: int | None = None) -> tuple[float, float]:
        """Gives the weights that a device computes with, and of these those of routed experts.

        What is cut is put together for that; experts that others have are not.

        Args:
            device: see `stage_parameters`.
        """
        shape, layout = self.shape, self.layout
        whole, _ = self.stage_parameters(device)
        layers = self.stage_layers if device is None else self.layers_of(device)
        sparse = layers * shape.sparse_layers / shape.depth
        of_all = sparse * shape.num_experts * 3 * shape.width * shape.expert_width
        here = sparse * self.routed_parameters()
        return whole - of_all / layout.tensor + here, here

    def routed_parameters(self) -> float:
        """Gives the weights of the experts of one layer that a device computes with."""
        shape = self.shape
        return shape.num_experts / self.layout.expert * 3 * shape.width * shape.expert_width
