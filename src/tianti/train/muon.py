"""Muon: momentum, orthogonalised, for the hidden matrices.

Jordan et al. 2024 (kellerjordan.github.io/posts/muon); the polynomial of each iteration from
Amsel et al. 2025 ("Polar Express", arXiv:2505.16932); updates scaled to the root mean square of
AdamW's, so that both share one learning rate and one weight decay (Liu et al. 2025,
arXiv:2502.16982, equation 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tianti.train.parts import Holding

# Coefficients for five iterations, safety factor 2e-2, from the authors' reference table.
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
ADAMW_RMS = 0.2
# How many times longer than wide a matrix must be for the detour over its square to pay.
LONG = 1.5


def orthogonalize(matrices: Tensor) -> Tensor:
    """Gives for each matrix about the nearest one whose singular values are all 1.

    Args:
        matrices: `(count, rows, columns)`, any float type.

    Returns:
        The same shape. Singular values above a hundredth of the norm come to lie between 0.85 and
        1.15, smaller ones grow a hundredfold; zero matrices stay zero.
    """
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    norm = x.flatten(1).norm(dim=1).view(-1, 1, 1)
    x = x / (norm * 1.02 + 1e-7)
    if x.dtype == torch.float32 and x.shape[-1] >= LONG * x.shape[-2]:
        x = _through_gram(x)
        return x if wide else x.mT
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x if wide else x.mT


def _through_gram(x: Tensor) -> Tensor:
    """Gives the same for long matrices, with the long side in two products instead of ten.

    All iterations are polynomials of `x @ x.T` times `x`, and polynomials of one matrix commute: so
    the product of the polynomials is gathered first. Squaring costs half of the digits of small
    singular values: entries of the result err by 1e-3 where some are 1e-5 of the largest, against
    the 0.15 by which the values themselves miss 1.
    """
    gram = x @ x.mT
    identity = torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    gathered: Tensor | None = None
    for number, (a, b, c) in enumerate(POLAR_EXPRESS, 1):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c).add_(identity, alpha=a)
        gathered = polynomial if gathered is None else polynomial @ gathered
        if number < len(POLAR_EXPRESS):
            gram = polynomial @ (gram @ polynomial)
    assert gathered is not None
    return gathered @ x


@dataclass(frozen=True)
class MatrixPart:
    """The block that a rank holds of a matrix that is to be orthogonalised.

    Args:
        block: some of its rows and columns, perhaps none.
        first: number of the first of these rows in the matrix.
        left: number of the first of these columns.
        height: rows of the whole matrix.
        width: its columns.
    """

    block: Tensor
    first: int
    left: int
    height: int
    width: int

    @staticmethod
    def whole(matrix: Tensor) -> MatrixPart:
        """Gives the part that is all of a matrix."""
        return MatrixPart(matrix, 0, 0, *matrix.shape)


def parts_of(held: Tensor, splits: Sequence[int], holding: Holding) -> list[MatrixPart]:
    """Gives what is held of each of the matrices fused into a parameter, as views.

    Args:
        held: what is held of the parameter, or of its update.
        splits: row counts of the matrices.
        holding: which part of the parameter it is.
    """
    parts, begin, width = [], 0, holding.whole[1]
    for height in splits:
        part = MatrixPart(held[:0], 0, 0, height, width)
        for piece in holding.pieces:
            low = max(begin, piece.start[0])
            high = min(begin + height, piece.start[0] + piece.size[0])
            if low < high:
                at = piece.at + low - piece.start[0]
                block = held[at : at + high - low]
                part = MatrixPart(block, low - begin, piece.start[1], height, width)
        parts.append(part)
        begin += height
    return parts


def orthogonalize_parts(parts: list[MatrixPart]) -> list[Tensor]:
    """Orthogonalises matrices in place where each part is a whole one; those of one shape at once.

    Args:
        parts: whole matrices, which are overwritten.

    Returns:
        These matrices.
    """
    shapes: dict[torch.Size, list[Tensor]] = {}
    for part in parts:
        shapes.setdefault(part.block.shape, []).append(part.block)
    for matrices in shapes.values():
        for matrix, made in zip(matrices, orthogonalize(torch.stack(matrices)), strict=True):
            matrix.copy_(made)
    return [part.block for part in parts]


class Muon(torch.optim.Optimizer):
    """Muon over matrices, those of one shape together.

    Args:
        groups: dictionaries with `params`; for each parameter, in `splits`, the row counts of the
            matrices fused into it, which are orthogonalised apart, and, in `holdings`, which part
            of it is held here; all of each when not given.
        dtype: that matrices are orthogonalised in; the iterations bear bfloat16 (Jordan et al.
            2024), in which some devices are many times as fast.
        lr: learning rate, on AdamW's scale.
        momentum: decay of the momentum; Nesterov's form.
        weight_decay: decoupled.
        solve: orthogonalises matrices of which only a part is held here.
    """

    def __init__(
        self,
        groups: list[dict],
        lr: float,
        momentum: float,
        weight_decay: float,
        solve: Callable[[list[MatrixPart]], list[Tensor]] = orthogonalize_parts,
        dtype: torch.dtype = torch.float32,
    ):
        for group in groups:
            group.setdefault("holdings", [Holding.all_of(tuple(p.shape)) for p in group["params"]])
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._solve, self._dtype = solve, dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            targets: list[Tensor] = []
            parts: list[MatrixPart] = []
            members = zip(group["params"], group["splits"], group["holdings"], strict=True)
            for parameter, splits, holding in members:
                if parameter.grad is None:
                    continue
                update = self._momentum(parameter, group["momentum"]).to(self._dtype)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                targets += [part.block for part in parts_of(parameter, splits, holding)]
                parts += parts_of(update, splits, holding)
            for target, part, update in zip(targets, parts, self._solve(parts), strict=True):
                longer = max(part.height, part.width)
                target.add_(update, alpha=-group["lr"] * ADAMW_RMS * longer**0.5)

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"]
        buffer.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(buffer, momentum)
