"""Attention alone on a GPU, kernel by kernel: `python benchmarks/gpu_attention.py`.

Forward and backward passes in bfloat16, as TFLOP/s of causal work: what documents save counts as
done. cuDNN cannot keep documents apart; FlashAttention 2 does it by lengths (`varlen_attn`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention

from tianti.model.attention import document_blocks

SHAPES = {"1.3b": (8, 16, 2048, 128), "124m": (32, 12, 1024, 64)}
DOCUMENT = 600
BACKWARD = ("BLOCK_M1", "BLOCK_N1", "BLOCK_M2", "BLOCK_N2", "num_stages", "num_warps")
OPTIONS: tuple[dict[str, int | bool], ...] = (
    {},
    {"ROWS_GUARANTEED_SAFE": True},
    {"PRESCALE_QK": True},
    {"USE_TMA": True},
    {"num_stages": 2, "num_warps": 8},
    *(
        {f"bwd_{name}": value for name, value in zip(BACKWARD, values, strict=True)}
        for values in ((64, 128, 128, 64, 2, 8), (64, 64, 64, 64, 3, 4), (64, 64, 64, 64, 2, 4))
    ),
)


def timed(name: str, run: Callable[[], Tensor], inputs: list[Tensor], flops: float) -> None:
    """Prints how fast a kernel is, or why it does not run."""
    from triton.testing import do_bench

    try:
        gradient = torch.randn_like(run())
        forward = do_bench(run, return_mode="median")
        both = do_bench(lambda: torch.autograd.grad(run(), inputs, gradient), return_mode="median")
    except Exception as error:  # noqa: BLE001 -- a kernel that does not run is a finding
        print(f"| {name} | {str(error).strip().splitlines()[-1][:80]} | |", flush=True)
        return
    back = both - forward
    print(
        f"| {name} | {forward:.2f} ms, {flops / forward / 1e9:.0f}"
        f" | {back:.2f} ms, {2.5 * flops / back / 1e9:.0f} |",
        flush=True,
    )


def documents(batch: int, time: int, device: str) -> dict[str, Tensor]:
    """Gives the document of each token: one a row, or many that end anywhere."""
    one = torch.zeros(batch, time, dtype=torch.int64, device=device)
    drawn = torch.rand(batch, time, generator=torch.Generator().manual_seed(0))
    return {"one": one, "many": (drawn < 1 / DOCUMENT).cumsum(1).to(device)}


def by_lengths(heads: list[Tensor], segments: Tensor) -> tuple[Callable[[], Tensor], list[Tensor]]:
    """Gives FlashAttention 2 over documents one behind the other, and its inputs."""
    import inspect

    from torch.nn.attention.varlen import varlen_attn

    batch, time = segments.shape
    flat = [part.detach().transpose(1, 2).flatten(0, 1).contiguous() for part in heads]
    inputs = [part.requires_grad_() for part in flat]
    row = torch.arange(batch, device=segments.device)[:, None]
    key = (segments + row * time).flatten()
    ends = (key[1:] != key[:-1]).nonzero().flatten() + 1
    edges = torch.cat((ends.new_zeros(1), ends, ends.new_tensor([batch * time]))).int()
    # The argument has another name from torch 2.12 on.
    windowed = "window_size" in inspect.signature(varlen_attn).parameters
    causal = {"window_size": (-1, 0)} if windowed else {"is_causal": True}
    return lambda: varlen_attn(*inputs, edges, edges, time, time, **causal), inputs


def main() -> None:
    """Measures all kernels at the shapes of two networks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default="1.3b,124m")
    for size in parser.parse_args().shapes.split(","):
        batch, heads, time, head_dim = SHAPES[size]
        flops = 2 * batch * heads * time * time * head_dim
        shape = (batch, heads, time, head_dim)
        qkv = [
            torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            for _ in range(3)
        ]
        print(f"\n{size}: {shape}\n\n| kernel, documents | forward | backward |\n|---|---|---|")
        for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
            with sdpa_kernel(backend):
                timed(
                    f"{backend.name}, one",
                    lambda qkv=qkv: F.scaled_dot_product_attention(*qkv, is_causal=True),
                    qkv,
                    flops,
                )
        for label, segments in documents(batch, time, "cuda").items():
            timed(f"varlen, {label}", *by_lengths(qkv, segments), flops)
            for options in OPTIONS if label == "one" else OPTIONS[:1]:
                torch.compiler.reset()
                compiled = torch.compile(flex_attention)
                mask = document_blocks(segments)
                timed(
                    f"flex, {label} {options or ''}",
                    lambda f=compiled, m=mask, o=options, qkv=qkv: f(
                        *qkv, block_mask=m, kernel_options=o
                    ),
                    qkv,
                    flops,
                )


if __name__ == "__main__":
    main()
