"""Peers that learn from a text as their own training scripts would, from unmodified sources.

Each `Learner` has the network, the optimizer and the schedule of its own script; the batch is that
of the shape. Sources are found by NANOGPT and NANOCHAT, as in `train_peers.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from train_peers import CLIP, Shape, nanochat_model, nanogpt_model

WARMUP_STEPS = 100
NANOCHAT_BATCH = 2**19


class Learner:
    """A network in training.

    Args:
        step: `(number, total, ids, labels)` takes a step of so many.
        token_nats: `(ids, labels)` gives the loss of each token, flat, without gradient.
    """

    def __init__(
        self,
        step: Callable[[int, int, Tensor, Tensor], None],
        token_nats: Callable[[Tensor, Tensor], Tensor],
    ):
        self.step, self.token_nats = step, token_nats


def nanogpt(shape: Shape, rate: float) -> Learner:
    """Gives nanoGPT with the settings of its train.py, but for the rate and a shorter warm-up.

    Its 2,000 steps of warm-up are more than all steps here; 100 are those of its character model.
    """
    model = nanogpt_model(shape)
    optimizer = model.configure_optimizers(0.1, rate, (0.9, 0.95), "cpu")
    network = torch.compile(model)

    def step(number: int, total: int, ids: Tensor, labels: Tensor) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate * cosine_to_a_tenth(number, total)
        _, loss = network(ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    @torch.no_grad()
    def token_nats(ids: Tensor, labels: Tensor) -> Tensor:
        model.eval()
        logits, _ = model(ids, labels)
        model.train()
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="none"
        )

    return Learner(step, token_nats)


def cosine_to_a_tenth(number: int, total: int) -> float:
    """Gives the share of the peak rate that nanoGPT's train.py has at a step."""
    if number < WARMUP_STEPS:
        return (number + 1) / (WARMUP_STEPS + 1)
    done = (number - WARMUP_STEPS) / max(total - WARMUP_STEPS, 1)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def nanochat(shape: Shape, scale: float) -> Learner:
    """Gives nanochat with the rates of its base_train.py times `scale`, and its three schedules.

    Args:
        shape: network and batch.
        scale: of all rates; its own rule is the root of the batch's share of 2**19 tokens.
    """
    model = nanochat_model(shape)
    decay = 0.28 * math.sqrt(shape.batch * shape.time / NANOCHAT_BATCH)
    optimizer = model.setup_optimizer(
        unembedding_lr=0.008 * scale,
        embedding_lr=0.3 * scale,
        scalar_lr=0.5 * scale,
        matrix_lr=0.02 * scale,
        weight_decay=decay,
    )
    network = torch.compile(model, dynamic=False)

    def step(number: int, total: int, ids: Tensor, labels: Tensor) -> None:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * trapezium(number, total)
            if group["kind"] == "muon":
                group["momentum"] = nanochat_momentum(number, total)
                group["weight_decay"] = decay * 0.5 * (1 + math.cos(math.pi * number / total))
        loss = network(ids, labels)
        loss.backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)
        loss.item()

    @torch.no_grad()
    def token_nats(ids: Tensor, labels: Tensor) -> Tensor:
        return model(ids, labels, loss_reduction="none")

    return Learner(step, token_nats)


def trapezium(number: int, total: int) -> float:
    """Gives the share of the peak rate that nanochat's base_train.py has at a step."""
    down = round(0.65 * total)
    if number < 40:
        return (number + 1) / 40
    left = (total - number) / down
    return 1.0 if number <= total - down else left + (1 - left) * 0.05


def nanochat_momentum(number: int, total: int) -> float:
    """Gives Muon's momentum in nanochat's base_train.py at a step."""
    down = round(0.65 * total)
    if number < 400:
        return 0.85 + (0.97 - 0.85) * number / 400
    if number < total - down:
        return 0.97
    return 0.97 + (0.90 - 0.97) * (number - (total - down)) / down
