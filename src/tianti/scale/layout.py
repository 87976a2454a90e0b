"""How a network is laid out over many devices, with nothing left open."""

from __future__ import annotations

from dataclasses import dataclass

from tianti.errors import UserError
from tianti.messages import tr
from tianti.model.config import TransformerConfig
from tianti.train.config import LayoutConfig, TrainSettings


@dataclass(frozen=True)
class Place:
    """Where a rank stands in a layout: its number among those that share something.

    Args:
        pipeline: of its stages.
        replicate: of its copy.
        cut: among those over which its copy is cut.
        tensor: among those who share products.
        rows: of the rows of a batch that it computes.
    """

    pipeline: int
    replicate: int
    cut: int
    tensor: int
    rows: int


@dataclass(frozen=True)
class Layout:
    """A layout with nothing left open.

    Args:
        replicate: copies of the network that share a batch.
        shard: devices over which each copy is cut.
        context: devices that share the tokens of each row; a copy is cut over these too.
        tensor: devices that share each product of a layer.
        pipeline: devices among which layers are shared out.
        stages: pieces into which the layers of each of these are cut.
        expert: of the devices of `shard`, `context` and `tensor`, those that share out experts.
    """

    replicate: int = 1
    shard: int = 1
    context: int = 1
    tensor: int = 1
    pipeline: int = 1
    stages: int = 1
    expert: int = 1

    @property
    def devices(self) -> int:
        """Gives the number of all."""
        return self.replicate * self.shard * self.context * self.tensor * self.pipeline

    @property
    def cut(self) -> int:
        """Gives over how many devices the weights of a copy are cut."""
        return self.shard * self.context

    @property
    def row_groups(self) -> int:
        """Gives into how many parts the rows of a step are shared."""
        return self.replicate * self.shard

    @property
    def spread_experts(self) -> bool:
        """Tells whether experts are cut over other devices than what all tokens pass through."""
        return self.expert > 1 or self.tensor > 1

    def place(self, rank: int) -> Place:
        """Gives where a rank stands; `tianti.scale.mesh` numbers them alike."""
        inner, tensor = divmod(rank, self.tensor)
        outer, cut = divmod(inner, self.cut)
        pipeline, replicate = divmod(outer, self.replicate)
        rows = replicate * self.shard + cut // self.context
        return Place(pipeline, replicate, cut, tensor, rows)

    def degrees(self) -> dict[str, int]:
        """Gives what is shared by more than one device, by name."""
        return {name: value for name, value in vars(self).items() if value > 1}

    def describe(self) -> str:
        """Gives the layout in a few words."""
        parts = [f"{name} {value}" for name, value in self.degrees().items()]
        return " × ".join(parts) or tr("one device")


ONE_DEVICE = Layout()
_AS_SAID = ("context", "tensor", "pipeline", "stages", "expert")


def stage_layers(depth: int, stages: int) -> list[range]:
    """Gives the layers of each stage; the first and the last, which have more to do, no more.

    Args:
        depth: number of all layers.
        stages: number of stages.
    """
    least, over = divmod(depth, stages)
    # The middle is as wide as there are layers over; what does not fit there goes to the ends.
    order = sorted(range(stages), key=lambda i: (min(i, stages - 1 - i) == 0, i))
    sizes = [least + (order.index(i) < over) for i in range(stages)]
    ends = [sum(sizes[: i + 1]) for i in range(stages)]
    return [range(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def settle(config: LayoutConfig, devices: int, per_machine: int) -> Layout:
    """Gives the layout for so many devices.

    Args:
        config: what was said.
        devices: of all machines.
        per_machine: of one, between which links are fast.

    Raises:
        UserError: no layout of that many devices is what was said.
    """
    copies = None if config.replicate == "auto" else config.replicate
    model = config.tensor * config.pipeline
    groups = max(devices // (config.context * model), 1)
    if config.shard != "auto":
        shard = config.shard
    else:
        # Cut within a machine, copied between machines: what is cut travels at every layer.
        within = max(per_machine // (config.context * config.tensor), 1)
        shard = max(groups // copies, 1) if copies else min(groups, within)
    fixed = {name: getattr(config, name) for name in _AS_SAID}
    layout = Layout(copies or max(groups // shard, 1), shard, **fixed)
    if layout.devices != devices:
        raise UserError(
            tr(
                "layout {layout} is for {wanted} devices, there are {devices}",
                layout=" × ".join(
                    f"{name} {value}"
                    for name, value in vars(layout).items()
                    if value > 1 or name in ("replicate", "shard")
                ),
                wanted=layout.devices,
                devices=devices,
            ),
            where="layout",
            remedy=tr("Their product must be the number of devices; leave one of them at auto"),
        )
    return layout


def refuse_untunable(layout: Layout) -> None:
    """Refuses what a network that is tuned cannot be laid out in.

    Args:
        layout: the layout.

    Raises:
        UserError: the error names the setting to change.
    """
    for name in ("context", "tensor", "pipeline", "stages", "expert"):
        if getattr(layout, name) > 1:
            raise UserError(
                tr("a network is tuned in copies, or cut over devices: not with {name}", name=name),
                where=f"layout.{name}",
                remedy=tr("Leave it out: layout.shard and layout.replicate are enough"),
            )


def refuse_nonsense(layout: Layout, shape: TransformerConfig, settings: TrainSettings) -> None:
    """Refuses what cannot be trained in this layout, before anything is begun.

    Args:
        layout: the layout.
        shape: the network.
        settings: of training.

    Raises:
        UserError: it cannot; the error names the setting to change.
    """
    _refuse_shape(layout, shape)
    _refuse_rows(layout, settings, shape.context)
    if layout.pipeline > 1:
        _refuse_stages(layout, settings, shape.depth)
    elif layout.stages > 1:
        raise UserError(
            tr("stages are pieces of a pipeline, and there is none"),
            where="layout.stages",
            remedy=tr("Set layout.pipeline too, or leave it out"),
        )


def is_possible(layout: Layout, shape: TransformerConfig) -> bool:
    """Tells whether a network can be laid out so."""
    try:
        _refuse_shape(layout, shape)
    except UserError:
        return False
    return layout.pipeline * layout.stages <= shape.depth


def _refuse_shape(layout: Layout, shape: TransformerConfig) -> None:
    _refuse_tokens(layout, shape.context)
    if layout.tensor > 1:
        _refuse_products(layout.tensor, shape)
    _refuse_experts(layout, shape)


def _refuse_tokens(layout: Layout, context: int) -> None:
    # Two pieces of a row for each who shares it, and of these some tokens for each product's parts.
    pieces = 2 * layout.context * layout.tensor if layout.context > 1 else layout.tensor
    if context % pieces:
        degree = "context" if layout.context > 1 else "tensor"
        raise UserError(
            tr(
                "{tokens} tokens of a row cannot be shared evenly by {parts} devices",
                tokens=context,
                parts=layout.context * layout.tensor,
            ),
            where=f"layout.{degree}",
            remedy=tr("model.context must be a multiple of {number}", number=pieces),
        )


def _refuse_rows(layout: Layout, settings: TrainSettings, context: int) -> None:
    rows = settings.batch_rows
    if rows % layout.row_groups:
        upper = rows + -rows % layout.row_groups
        raise UserError(
            tr(
                "{rows} rows of a step cannot be shared evenly by {parts} devices",
                rows=rows,
                parts=layout.row_groups,
            ),
            where="train.batch_tokens",
            remedy=tr(
                "Set train.batch_tokens={tokens}, or take fewer devices", tokens=upper * context
            ),
        )


def _refuse_products(tensor: int, shape: TransformerConfig) -> None:
    unshared = {
        "attention_bias": shape.attention_bias != "none",
        "mlp_bias": shape.mlp_bias,
        "gated": not shape.gated,
        "query_key_norm": shape.query_key_norm == "all",
        "positions": shape.positions == "learned",
    }
    if names := [name for name, found in unshared.items() if found]:
        raise UserError(
            tr(
                "products of {family} cannot be shared: {names}",
                family=shape.family,
                names=", ".join(f"{name} {getattr(shape, name)}" for name in names),
            ),
            where="layout.tensor",
            remedy=tr("Take shard, context or pipeline"),
        )
    shared = {
        "model.num_heads": shape.num_heads,
        "model.num_kv_heads": shape.num_kv_heads,
        "model.mlp_width": shape.mlp_width if shape.sparse_layers < shape.depth else tensor,
        "model.expert_width": shape.shared_experts * shape.expert_width,
    }
    for name, value in shared.items():
        if value % tensor:
            raise UserError(
                tr(
                    "{name} is {value}, which {parts} devices cannot share evenly",
                    name=name,
                    value=value,
                    parts=tensor,
                ),
                where="layout.tensor",
                remedy=tr("Choose a divisor of it"),
            )
    if (tensor - 1) * -(-shape.vocab_size // tensor) >= shape.vocab_size:
        raise UserError(
            tr(
                "a vocabulary of {size} leaves nothing for some of {parts} devices",
                size=shape.vocab_size,
                parts=tensor,
            ),
            where="layout.tensor",
            remedy=tr("Take fewer"),
        )


def _refuse_stages(layout: Layout, settings: TrainSettings, depth: int) -> None:
    stages = layout.pipeline * layout.stages
    if stages > depth:
        raise UserError(
            tr("{stages} stages are more than {depth} layers", stages=stages, depth=depth),
            where="layout.pipeline" if layout.stages == 1 else "layout.stages",
            remedy=tr("Take fewer, or a deeper network"),
        )
    rows = settings.batch_rows // layout.row_groups
    at_once = min(settings.micro_batch_rows, rows)
    micro_batches = rows // at_once
    if rows % at_once or not fills(micro_batches, layout):
        good = [n for n in range(rows, 0, -1) if rows % n == 0 and fills(rows // n, layout)]
        raise UserError(
            tr(
                "{rows} rows, {at_once} at once, are no work for {stages} stages",
                rows=rows,
                at_once=at_once,
                stages=stages,
            ),
            where="train.micro_batch_rows",
            remedy=tr("Set train.micro_batch_rows={rows}", rows=good[0])
            if good
            else tr(
                "Set train.batch_tokens to {times} times as much", times=-(-layout.pipeline // rows)
            ),
        )


def fills(micro_batches: int, layout: Layout) -> bool:
    """Tells whether so many micro-batches are enough to pass through the stages."""
    return micro_batches >= layout.pipeline and (
        layout.stages == 1 or micro_batches % layout.pipeline == 0
    )


def _refuse_experts(layout: Layout, shape: TransformerConfig) -> None:
    devices = layout.cut * layout.tensor
    if layout.expert > 1 and (not shape.num_experts or shape.num_experts % layout.expert):
        raise UserError(
            tr(
                "{experts} experts cannot be shared out evenly among {parts} devices",
                experts=shape.num_experts,
                parts=layout.expert,
            ),
            where="layout.expert",
            remedy=tr("Choose a divisor of model.num_experts"),
        )
    if devices % layout.expert:
        raise UserError(
            tr(
                "{parts} who share experts are no divisor of shard × context × tensor, {devices}",
                parts=layout.expert,
                devices=devices,
            ),
            where="layout.expert",
            remedy=tr("Choose a divisor of it"),
        )
