"""Low-rank adapters beside frozen products: LoRA, rsLoRA, DoRA, and PiSSA's start.

A product that several matrices are fused into has an adapter for each of them, as PEFT has them, so
that files go both ways (`tianti.exchange.peft`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tianti.model.products import Linear, linear
from tianti.model.transformer import Transformer

HEAD = "head"


@dataclass(frozen=True)
class LoraConfig:
    """How adapters are made.

    Args:
        rank: of each (Hu et al. 2021, arXiv:2106.09685).
        alpha: what they give is multiplied by `alpha / rank`.
        dropout: share of what goes into them that training drops.
        rank_stabilized: by `alpha / sqrt(rank)` instead (Kalajdzievski 2023, arXiv:2312.03732).
        magnitudes: length and direction of each row are learnt apart (DoRA, Liu et al. 2024,
            arXiv:2402.09353).
        start: the second matrix at zero, or both from the largest singular values of the weight,
            which keeps the rest (PiSSA, Meng et al. 2024, arXiv:2404.02948).
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    rank_stabilized: bool = False
    magnitudes: bool = False
    start: Literal["zero", "singular"] = "zero"

    @property
    def scale(self) -> float:
        """Gives what the adapters' part is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


@dataclass(frozen=True)
class Place:
    """Where an adapter stands.

    Args:
        splits: rows of the matrices that are fused in the product.
        adapted: numbers of those that have one, in order.
    """

    splits: tuple[int, ...]
    adapted: tuple[int, ...]

    @property
    def rows(self) -> list[slice]:
        """Gives the rows of each matrix that has one, among those of all."""
        ends = [sum(self.splits[: number + 1]) for number in self.adapted]
        return [slice(end - self.splits[n], end) for n, end in zip(self.adapted, ends, strict=True)]

    @property
    def own_rows(self) -> list[slice]:
        """Gives the same among those that have one."""
        ends = list(itertools.accumulate(self.splits[number] for number in self.adapted))
        return [slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]


class Adapter(nn.Module):
    """What is added to a product, or to a weight.

    Attributes:
        a: what takes the input down to the rank, one matrix below the other.
        b: what takes it up to the output, the same.
        magnitude: length of each adapted row; None without `magnitudes`.
        a_taken: `a` as it was taken from the weight; None where nothing was.
        b_taken: the same of `b`.

    Args:
        weight: frozen weight of the product.
        place: the matrices in it.
        config: how it is made.
    """

    a_taken: Tensor | None
    b_taken: Tensor | None

    def __init__(self, weight: Tensor, place: Place, config: LoraConfig):
        super().__init__()
        self.place, self.config = place, config
        count, rank = len(place.adapted), config.rank
        height = place.own_rows[-1].stop
        device = weight.device
        self.a = nn.Parameter(torch.zeros(count * rank, weight.shape[1], device=device))
        self.b = nn.Parameter(torch.zeros(height, rank, device=device))
        self.magnitude: nn.Parameter | None = None
        if config.magnitudes:
            self.magnitude = nn.Parameter(torch.empty(height, device=device))
        # What was taken from the weight, so that a file can say what is learnt by itself.
        taken = config.start == "singular"
        self.register_buffer("a_taken", self.a.detach().clone() if taken else None, False)
        self.register_buffer("b_taken", self.b.detach().clone() if taken else None, False)

    @torch.no_grad()
    def initialize(self, weight: Tensor, generator: torch.Generator) -> None:
        """Fills it; with `singular` takes from the weight what it starts with.

        Args:
            weight: of the product, changed in place.
            generator: of what is drawn.
        """
        if self.config.start == "singular":
            self._take_singular(weight)
        else:
            # Kaiming's uniform with a slope of √5, as PEFT has it.
            bound = self.a.shape[1] ** -0.5
            drawn = torch.rand(self.a.shape, generator=generator)
            self.a.copy_((2 * drawn - 1) * bound)
            self.b.zero_()
        if self.magnitude is not None:
            self.magnitude.copy_(self.norms(weight))

    def _take_singular(self, weight: Tensor) -> None:
        rank, scale = self.config.rank, self.config.scale
        for rows, (a, b) in zip(self.place.rows, self._factors(), strict=True):
            u, s, v = torch.linalg.svd(weight[rows].float(), full_matrices=False)
            # A narrow matrix has fewer; the rest stay at zero.
            root = (s[:rank] / scale).sqrt()
            b[:, : len(root)] = u[:, :rank] * root
            a[: len(root)] = root[:, None] * v[:rank]
            weight[rows] -= (scale * (b @ a)).to(weight.dtype)
        assert self.a_taken is not None
        assert self.b_taken is not None
        self.a_taken.copy_(self.a)
        self.b_taken.copy_(self.b)

    def _factors(self) -> list[tuple[Tensor, Tensor]]:
        """Gives the two factors of what is added to each adapted matrix."""
        return self._split(self.a, self.b)

    def _split(self, a: Tensor, b: Tensor) -> list[tuple[Tensor, Tensor]]:
        ups = [b[rows] for rows in self.place.own_rows]
        return list(zip(a.split(self.config.rank), ups, strict=True))

    def learnt(self) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """Gives what is learnt of each adapted matrix: the two factors of what is added to the
        weight as it was before anything was taken from it, and the rows' lengths, if any."""
        factors = self._factors()
        if self.a_taken is not None and self.b_taken is not None:
            factors = [
                (torch.cat([a, a_taken]), torch.cat([b, -b_taken], dim=1))
                for (a, b), (a_taken, b_taken) in zip(
                    factors, self._split(self.a_taken, self.b_taken), strict=True
                )
            ]
        lengths = [None if (m := self.magnitude) is None else m[r] for r in self.place.own_rows]
        return [(a, b, length) for (a, b), length in zip(factors, lengths, strict=True)]

    def change(self) -> Tensor:
        """Gives what is added to the adapted rows of the weight, one below the other."""
        return self.config.scale * torch.cat([b @ a for a, b in self._factors()])

    def norms(self, weight: Tensor) -> Tensor:
        """Gives the length of each adapted row of the weight with what is added."""
        adapted = torch.cat([weight[rows] for rows in self.place.rows])
        return torch.linalg.vector_norm(adapted + self.change(), dim=1)

    def forward(self, x: Tensor, product: Tensor, of: Linear) -> Tensor:
        """Gives the product with what is added.

        Args:
            x: what the product is of, `(…, inputs)`.
            product: `x @ weight.T`, `(…, outputs)`.
            of: the layer of the product, whose weight is frozen, `(outputs, inputs)`.
        """
        dropped = x
        if self.config.dropout and self.training:
            dropped = F.dropout(x, self.config.dropout)
        down = linear(dropped, self.a.to(x.dtype))
        rank, lengths = self.config.rank, None
        if self.magnitude is not None:
            # The length of what is learnt counts as a constant (section 4.3 of the paper).
            lengths = (self.magnitude / self.norms(of.weight).detach()).to(product.dtype)
            if dropped is not x:
                base = of.product(dropped)
        found, place = list(product.split(self.place.splits, dim=-1)), self.place
        for index, (number, (_, b)) in enumerate(zip(place.adapted, self._factors(), strict=True)):
            low = down[..., index * rank : (index + 1) * rank]
            added = self.config.scale * linear(low, b.to(x.dtype))
            if lengths is not None:
                length = lengths[place.own_rows[index]]
                plain = found[number] if dropped is x else base[..., place.rows[index]]
                added = (length - 1) * plain + length * added
            found[number] = found[number] + added
        return torch.cat(found, dim=-1)

    def merged(self, weight: Tensor) -> Tensor:
        """Gives the weight with what is added."""
        rows = torch.cat([torch.arange(r.start, r.stop) for r in self.place.rows])
        rows = rows.to(weight.device)
        added = self.change() + weight[rows]
        if self.magnitude is not None:
            norms = torch.linalg.vector_norm(added, dim=1).detach()
            added = added * (self.magnitude / norms)[:, None]
        return weight.index_copy(0, rows, added.to(weight.dtype))


def attach(model: Transformer, places: Mapping[str, Place], config: LoraConfig, seed: int) -> None:
    """Freezes a network and sets adapters beside some of its products.

    Args:
        model: the network.
        places: by the name of a product's module; `head` stands for the output layer, whether it is
            the embedding or not.
        config: how they are made.
        seed: of what is drawn.
    """
    if HEAD in places and config.start == "singular":
        raise ValueError("of an output layer that is the embedding nothing can be taken")
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for name, place in places.items():
        weight = model.output_weight if name == HEAD else _product(model, name).weight
        adapter = Adapter(weight, place, config)
        adapter.initialize(weight, generator)
        if name == HEAD:
            model.head_adapter = adapter
        else:
            _product(model, name).adapter = adapter


def _product(model: Transformer, name: str) -> Linear:
    module = model.get_submodule(name)
    assert isinstance(module, Linear)
    return module


def adapters_of(model: Transformer) -> dict[str, Adapter]:
    """Gives the adapters of a network by the name of the product they stand beside."""
    found = {
        name: module.adapter
        for name, module in model.named_modules()
        if isinstance(module, Linear) and isinstance(module.adapter, Adapter)
    }
    head = model.head_adapter
    return found | ({HEAD: head} if isinstance(head, Adapter) else {})


@torch.no_grad()
def merge(model: Transformer) -> Transformer:
    """Adds what adapters have learnt to the weights, and takes them away.

    An output layer that was the embedding becomes one of its own where it has learnt something: the
    embedding has not.

    Args:
        model: the network, whose products are changed.

    Returns:
        It; or, where its output layer becomes another, a new one of the same weights.
    """
    for module in model.modules():
        if isinstance(module, Linear) and isinstance(module.adapter, Adapter):
            module.weight.copy_(module.adapter.merged(module.weight))
            module.adapter = None
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if model.head_adapter is None:
        return model
    learnt = model.output_weight.detach().clone()
    model.head_adapter = None
    return _with_head(model, learnt)


def _with_head(model: Transformer, weight: Tensor) -> Transformer:
    if model.head is not None:
        model.head.weight.copy_(weight)
        return model
    untied = Transformer(replace(model.config, tied_embeddings=False)).to(weight.device)
    untied.load_state_dict(model.state_dict(), strict=False)
    assert untied.head is not None
    untied.head.weight.copy_(weight)
    return untied.train(model.training)
