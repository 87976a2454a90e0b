"""Peak memory of training steps against what the model must hold: `python benchmarks/memory.py`.

One process for each row. The peak is resident memory above what the process had before the network
was made; beside it stand weights, gradients and moments, which nothing can spare: what is left are
activations. Float32, eager, on the processor.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from train_peers import SHAPES
from train_speed import our_config

MODES = ("off", "selective", "full")
VOCABULARIES = (4096, 32_768, 131_072)


def measure(size: str, vocabulary: int, mode: str, whole_logits: bool) -> dict[str, float]:
    """Gives bytes: `peak` above the start, `held` of weights, gradients and moments."""
    import torch

    from tianti.model.initialization import initialize
    from tianti.model.transformer import Transformer
    from tianti.objective.causal import causal_loss
    from tianti.train.activations import checkpoint_activations

    shape = replace(SHAPES[size], vocabulary=vocabulary)
    warm = torch.nn.Linear(256, 256)
    warm(torch.randn(64, 256)).sum().backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = Transformer(our_config(shape))
    initialize(model, 0)
    checkpoint_activations(model, mode)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    ids = torch.randint(0, vocabulary, (shape.batch, shape.time))
    for _ in range(2):
        if whole_logits:
            logits = model.logits(model(ids).flatten(0, 1))
            loss = torch.nn.functional.cross_entropy(logits, ids.flatten())
        else:
            loss = causal_loss(model, ids, ids, None).total / ids.numel()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held = 4 * 4 * sum(parameter.numel() for parameter in model.parameters())
    return {"peak": 1024 * (after - before), "held": held}


def row(size: str, vocabulary: int, mode: str, whole_logits: bool = False) -> dict[str, Any]:
    """Measures one row in a process of its own."""
    one = json.dumps([size, vocabulary, mode, whole_logits])
    command = [sys.executable, __file__, "--one", one]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    name = f"{mode}, all logits at once" if whole_logits else mode
    return {"vocabulary": vocabulary, "checkpointing": name, **json.loads(done.stdout)}


def main() -> None:
    """Measures vocabularies and modes, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="12m")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*json.loads(arguments.one))))
        return
    rows = [row(arguments.shape, VOCABULARIES[0], mode) for mode in MODES]
    rows += [row(arguments.shape, vocabulary, "full") for vocabulary in VOCABULARIES[1:]]
    rows += [row(arguments.shape, vocabulary, "full", True) for vocabulary in VOCABULARIES]
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    shape = SHAPES[arguments.shape]
    print(
        f"{shape.depth} layers, width {shape.width}, {shape.batch} rows of {shape.time} tokens:\n"
    )
    print("| vocabulary | checkpointing | peak | weights, gradients, moments | the rest |")
    print("|---|---|---|---|---|")
    for found in rows:
        rest = found["peak"] - found["held"]
        cells = [f"{found[name] / 1e6:,.0f} MB" for name in ("peak", "held")]
        print(
            f"| {found['vocabulary']:,} | {found['checkpointing']} | {cells[0]} | {cells[1]} |"
            f" {rest / 1e6:,.0f} MB |"
        )


if __name__ == "__main__":
    main()
