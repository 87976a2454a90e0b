"""Layers whose products several ranks share (tensor parallelism), and tokens between them.

Each rank has some heads of attention and some of the inner width (Shoeybi et al. 2019,
arXiv:1909.08053). Between these each has some of the tokens of the stream, so that norms and what
is kept for the backward pass are shared too (sequence parallelism, Korthikanti et al. 2022,
arXiv:2205.05198). Of the vocabulary, too, each has some rows, of embedding and output layer.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tianti.model.attention import Attention
from tianti.model.feedforward import FeedForward
from tianti.model.initialization import weight_roles
from tianti.model.transformer import Transformer
from tianti.scale.collectives import gathered, scattered
from tianti.train.parts import Holding, Piece


@dataclass(frozen=True)
class SharedVocabulary:
    """The rows of the vocabulary that a rank has; see `tianti.objective.linear_cross_entropy`."""

    first: int
    size: int
    most: int
    group: dist.ProcessGroup

    def log_sum(self, here_N: Tensor) -> Tensor:
        """Gives the logarithm of the sum of all ranks' exponentials from that of each."""
        greatest = here_N.clone()
        dist.all_reduce(greatest, dist.ReduceOp.MAX, group=self.group)
        return self.sum((here_N - greatest).exp()).log() + greatest

    def sum(self, here_N: Tensor) -> Tensor:
        """Gives the sum over the ranks."""
        found = here_N.clone()
        dist.all_reduce(found, group=self.group)
        return found


class SharedProducts:
    """The ranks that share the products of each layer.

    Args:
        group: these ranks.
        vocabulary: size of it.
    """

    def __init__(self, group: dist.ProcessGroup, vocabulary: int):
        self._group, self._count, self._number = group, group.size(), group.rank()
        most = -(-vocabulary // self._count)
        self.vocabulary = SharedVocabulary(self._number * most, vocabulary, most, group)

    def lay_over(self, model: Transformer) -> dict[str, Holding]:
        """Leaves this rank's part of a network without memory, and has it pass on what others need.

        Args:
            model: the network.

        Returns:
            What is held of the weights that are cut.
        """
        held: dict[str, Holding] = {}
        config, roles = model.config, weight_roles(model.config)
        heads = dataclasses.replace(
            config,
            num_heads=config.num_heads // self._count,
            num_kv_heads=config.num_kv_heads // self._count,
        )
        for name, module in model.named_modules():
            if isinstance(module, Attention):
                module.config = heads
                into, out, tokens = "qkv", "out", 1
            elif isinstance(module, FeedForward):
                # The shared experts get tokens of all rows in one line.
                into, out, tokens = "gate_up", "down", 0 if name.endswith("shared") else 1
            else:
                continue
            weight = f"{name}.{into}.weight"
            held[weight] = self._rows(getattr(module, into), roles[weight].splits)
            held[f"{name}.{out}.weight"] = self._columns(getattr(module, out))
            module.register_forward_pre_hook(functools.partial(self._gather_first, tokens))
            module.register_forward_hook(functools.partial(self._scatter_last, tokens))
        held["embedding.weight"] = self._vocabulary_rows(model.embedding)
        model.embedding.forward = self._embed(model.embedding)  # type: ignore[method-assign]
        if model.head is not None:
            held["head.weight"] = self._vocabulary_rows(model.head)
        model.final_norm.register_forward_hook(self._gather_last)
        return held

    def _rows(self, module: nn.Module, splits: tuple[int, ...]) -> Holding:
        """Leaves some rows of each of the matrices that are fused in a layer."""
        whole = _shape(module)
        pieces, begin, at = [], 0, 0
        for height in splits:
            size = height // self._count
            start = begin + self._number * size
            pieces.append(Piece(at, (start, 0), (size, whole[1])))
            begin, at = begin + height, at + size
        return _leave(module, Holding(whole, (at, whole[1]), tuple(pieces)))

    def _columns(self, module: nn.Module) -> Holding:
        height, width = _shape(module)
        size = width // self._count
        piece = Piece(0, (0, self._number * size), (height, size))
        return _leave(module, Holding((height, width), piece.size, (piece,)))

    def _vocabulary_rows(self, module: nn.Module) -> Holding:
        height, width = _shape(module)
        first = self.vocabulary.first
        size = min(self.vocabulary.most, height - first)
        piece = Piece(0, (first, 0), (size, width))
        return _leave(module, Holding((height, width), piece.size, (piece,)))

    def _embed(self, embedding: nn.Embedding) -> Any:
        inner = embedding.forward

        def forward(ids_BT: Tensor) -> Tensor:
            local = ids_BT - self.vocabulary.first
            size = embedding.weight.shape[0]
            here = (local >= 0) & (local < size)
            found = inner(local.clamp(0, size - 1)) * here.unsqueeze(-1)
            return self._scattered(found, 1)

        return forward

    def _gathered(self, x: Tensor, tokens: int) -> Tensor:
        return gathered(x, tokens, self._group)

    def _scattered(self, x: Tensor, tokens: int) -> Tensor:
        return scattered(x, tokens, self._group)

    def _gather_first(self, tokens: int, module: nn.Module, arguments: tuple[Any, ...]) -> Any:
        return self._gathered(arguments[0], tokens), *arguments[1:]

    def _scatter_last(
        self, tokens: int, module: nn.Module, arguments: tuple[Any, ...], found: Tensor
    ) -> Tensor:
        return self._scattered(found, tokens)

    def _gather_last(self, module: nn.Module, arguments: tuple[Any, ...], found: Tensor) -> Tensor:
        return self._gathered(found, 1)


def _shape(module: nn.Module) -> tuple[int, int]:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.shape[0], weight.shape[1]


def _leave(module: nn.Module, holding: Holding) -> Holding:
    """Has a layer hold no more than a part of its weight."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    module.weight = nn.Parameter(torch.empty(holding.shape, device="meta", dtype=weight.dtype))
    return holding
