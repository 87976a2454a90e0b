"""What a mixture of experts costs beside a dense network of as much work: `python experts.py`.

Whole training steps, AdamW, float32, in turn in one process: a dense network, mixtures in which a
token passes through as many weights, and transformers' Qwen3-MoE of the same shape, uncompiled,
because its experts cannot be compiled into one graph.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from train_peers import SHAPES, Shape, _plain_step
from train_speed import our_config, our_step

MIXTURES = ((8, 2), (32, 4), (64, 8))


def theirs(shape: Shape, experts: int, chosen: int) -> Any:
    """Gives the step of transformers' Qwen3-MoE."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    model: Any = Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.mlp_width,
            moe_intermediate_size=shape.mlp_width // chosen,
            num_experts=experts,
            num_experts_per_tok=chosen,
            norm_topk_prob=True,
            num_hidden_layers=shape.depth,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            head_dim=shape.width // shape.heads,
            max_position_embeddings=shape.time,
            tie_word_embeddings=True,
            use_cache=False,
        )
    )
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    return _plain_step(lambda ids, labels: model(ids, labels=ids).loss, parameters, optimizer)


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="12m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip-peer", action="store_true")
    arguments = parser.parse_args()
    shape = SHAPES[arguments.shape]
    dense = our_config(shape)
    steps: dict[str, Any] = {"dense": our_step(shape, "adamw")}
    for experts, chosen in MIXTURES:
        mixture = replace(
            dense,
            num_experts=experts,
            experts_per_token=chosen,
            expert_width=shape.mlp_width // chosen,
        )
        name = f"{experts} experts, {chosen} to a token"
        steps[name] = our_step(shape, "adamw", config=mixture)
        if not arguments.skip_peer:
            steps[f"{name}, transformers"] = theirs(shape, experts, chosen)
    data = torch.randint(0, shape.vocabulary, (shape.batch, shape.time + 1))
    ids, labels = data[:, :-1].contiguous(), data[:, 1:].contiguous()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(arguments.rounds + 2):
        for name, step in steps.items():
            begun = time.perf_counter()
            step(ids, labels)
            if number >= 2:
                times[name].append(time.perf_counter() - begun)
    tokens = shape.batch * shape.time
    speeds = {name: tokens / statistics.median(found) for name, found in times.items()}
    print("| | tokens/s (least–most) | ÷ dense |")
    print("|---|---|---|")
    for name, found in times.items():
        spread = f"{tokens / max(found):,.0f}–{tokens / min(found):,.0f}"
        ratio = speeds[name] / speeds["dense"]
        print(f"| {name} | {speeds[name]:,.0f} ({spread}) | {ratio:.2f} |")


if __name__ == "__main__":
    main()
