"""Whole training steps of peers, from their own unmodified sources.

Each function builds a network of a shape with its own optimizer and gives its step: batch in, loss
out. Sources are found by environment variables: NANOGPT, NANOCHAT and LITGPT name checkouts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], float]
CLIP = 1.0


@dataclass(frozen=True)
class Shape:
    """A network and its batch.

    Args:
        depth: layers.
        heads: in each.
        width: of the residual stream.
        mlp_width: of the SwiGLU; peers with two matrices take 3/2 of it.
        vocabulary: tokens.
        time: tokens in a row.
        batch: rows in a step.
        micro_batch: of these, rows at once; all when 0.
    """

    depth: int
    heads: int
    width: int
    mlp_width: int
    vocabulary: int
    time: int
    batch: int
    micro_batch: int = 0

    @property
    def flops_per_token(self) -> float:
        """Matrix products alone, backward twice the forward; attention as causal."""
        layer = 4 * self.width**2 + 3 * self.width * self.mlp_width
        matrices = self.depth * layer + self.vocabulary * self.width
        return 6.0 * (matrices + self.depth * self.width * self.time)


SHAPES = {
    "12m": Shape(6, 6, 384, 1024, 4096, 256, 16),
    "85m": Shape(12, 12, 768, 2048, 4096, 512, 4),
}
GPU_SHAPES = {
    "tiny": Shape(2, 2, 64, 128, 512, 64, 4),
    "124m": Shape(12, 12, 768, 2048, 50304, 1024, 64, 32),
    "350m": Shape(24, 16, 1024, 2752, 50304, 1024, 128, 32),
    "1.3b": Shape(24, 16, 2048, 5504, 50304, 2048, 64, 8),
}


def peer_modules(variable: str) -> None:
    """Makes the modules of a peer's checkout importable."""
    folder = os.environ.get(variable)
    if not folder:
        raise SystemExit(f"{variable} must name a checkout")
    sys.path.insert(0, folder)


def _plain_step(
    loss_of: Callable[[Tensor, Tensor], Tensor],
    parameters: list[Tensor],
    optimizer: torch.optim.Optimizer,
    micro_batch: int = 0,
) -> Step:
    def step(ids: Tensor, labels: Tensor) -> float:
        whole = torch.zeros((), device=ids.device)
        rows = micro_batch or len(ids)
        parts = zip(ids.split(rows), labels.split(rows), strict=True)
        for some_ids, some_labels in parts:
            loss = loss_of(some_ids, some_labels) * (len(some_ids) / len(ids))
            loss.backward()
            whole += loss.detach()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return whole.item()

    return step


def nanogpt_model(shape: Shape) -> Any:
    """Gives nanoGPT's network of a shape."""
    peer_modules("NANOGPT")
    from model import GPT, GPTConfig

    return GPT(
        GPTConfig(
            block_size=shape.time,
            vocab_size=shape.vocabulary,
            n_layer=shape.depth,
            n_head=shape.heads,
            n_embd=shape.width,
            dropout=0.0,
            bias=False,
        )
    )


def nanogpt(shape: Shape, compiled: bool) -> Step:
    """Gives nanoGPT's step, as its train.py takes it."""
    model = nanogpt_model(shape)
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    parameters = list(model.parameters())
    if compiled:
        model = torch.compile(model)
    return _plain_step(lambda ids, labels: model(ids, labels)[1], parameters, optimizer)


def transformers_llama(shape: Shape, compiled: bool, device: str = "cpu") -> Step:
    """Gives the step of transformers' Llama with the optimizer of its Trainer.

    On a GPU in bfloat16 as its Trainer has it: autocast over weights in float32.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.mlp_width,
            num_hidden_layers=shape.depth,
            num_attention_heads=shape.heads,
            max_position_embeddings=shape.time,
            tie_word_embeddings=True,
            use_cache=False,
        )
    ).to(device)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    if compiled:
        model = torch.compile(model)

    def loss_of(ids: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu"):
            # Its labels are not shifted: it shifts them itself.
            return model(ids, labels=ids).loss

    return _plain_step(loss_of, parameters, optimizer, shape.micro_batch)


def litgpt(shape: Shape, compiled: bool) -> Step:
    """Gives litgpt's step, as its pretrain.py takes it."""
    peer_modules("LITGPT")
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    model: Any = GPT(
        Config(
            block_size=shape.time,
            vocab_size=shape.vocabulary,
            padded_vocab_size=shape.vocabulary,
            n_layer=shape.depth,
            n_head=shape.heads,
            n_embd=shape.width,
            intermediate_size=shape.mlp_width,
            mlp_class_name="LLaMAMLP",
            norm_class_name="RMSNorm",
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
        )
    )
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    if compiled:
        model = torch.compile(model)
    return _plain_step(
        lambda ids, labels: chunked_cross_entropy(model(ids), labels), parameters, optimizer
    )


def nanochat_model(shape: Shape) -> Any:
    """Gives nanochat's network of a shape, its weights as it starts them."""
    peer_modules("NANOCHAT")
    from nanochat.gpt import GPT, GPTConfig

    model: Any = GPT(
        GPTConfig(
            sequence_len=shape.time,
            vocab_size=shape.vocabulary,
            n_layer=shape.depth,
            n_head=shape.heads,
            n_kv_head=shape.heads,
            n_embd=shape.width,
            window_pattern="L",
        )
    )
    model.init_weights()
    return model


def nanochat(shape: Shape, compiled: bool) -> Step:
    """Gives nanochat's step, as its base_train.py takes it (it does not clip)."""
    model = nanochat_model(shape)
    optimizer = model.setup_optimizer()
    network = torch.compile(model, dynamic=False) if compiled else model

    def step(ids: Tensor, labels: Tensor) -> float:
        loss = network(ids, labels)
        loss.backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)
        return loss.item()

    return step


CONTENDERS: dict[str, Callable[[Shape], Step]] = {
    "nanogpt": lambda shape: nanogpt(shape, False),
    "nanogpt-compiled": lambda shape: nanogpt(shape, True),
    "transformers-compiled": lambda shape: transformers_llama(shape, True),
    "litgpt-compiled": lambda shape: litgpt(shape, True),
    "nanochat-compiled": lambda shape: nanochat(shape, True),
}
