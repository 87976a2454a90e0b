"""Float32 products by each library at hand: `python benchmarks/products.py`.

Output, gradient of the input, gradient of the weight, for the products of a layer of both shapes of
`train_speed.py`, in turn, freed memory kept. MKL is what `torch.mm` is where PyTorch has it; oneDNN
what `tianti.model.products` takes instead on AMD's processors.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from train_peers import SHAPES, Shape

from tianti.allocator import keep_freed_memory
from tianti.model.products import _onednn_linear, _onednn_weight_gradient

ROUNDS = 11
Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
# By what is computed and by whom: of input (M, K), weight (N, K) and gradient (M, N).
WAYS: dict[str, dict[str, Product]] = {
    "output": {
        "torch.mm": lambda x, w, g: torch.mm(x, w.t()),
        "oneDNN": lambda x, w, g: _onednn_linear(x, w),
    },
    "gradient of the input": {
        "torch.mm": lambda x, w, g: torch.mm(g, w),
        "oneDNN": lambda x, w, g: _onednn_linear(g, w.t()),
    },
    "gradient of the weight": {
        "torch.mm": lambda x, w, g: torch.mm(g.t(), x),
        "oneDNN, as an output": lambda x, w, g: _onednn_linear(g.t(), x.t()),
        "oneDNN": lambda x, w, g: _onednn_weight_gradient(g, x),
    },
}


def products(shape: Shape) -> list[tuple[int, int, int]]:
    """Gives rows, inputs and outputs of the products of a layer."""
    rows, width, inner = shape.batch * shape.time, shape.width, shape.mlp_width
    return [
        (rows, width, 3 * width),
        (rows, width, width),
        (rows, width, 2 * inner),
        (rows, inner, width),
    ]


def main() -> None:
    """Measures, and prints a table of GFLOP/s and of milliseconds in all."""
    keep_freed_memory()
    sizes = [size for shape in SHAPES.values() for size in products(shape)]
    speeds: dict[tuple[str, str], list[float]] = {}
    seconds: dict[tuple[str, str], float] = {}
    for rows, inputs, outputs in sizes:
        x, w, g = (
            torch.randn(*size) for size in ((rows, inputs), (outputs, inputs), (rows, outputs))
        )
        cases = {(kind, way): f for kind, ways in WAYS.items() for way, f in ways.items()}
        times: dict[tuple[str, str], list[float]] = {key: [] for key in cases}
        for number in range(ROUNDS + 2):
            for key, product in cases.items():
                begun = time.perf_counter()
                product(x, w, g)
                if number >= 2:
                    times[key].append(time.perf_counter() - begun)
        for key, found in times.items():
            median = statistics.median(found)
            speeds.setdefault(key, []).append(2 * rows * inputs * outputs / median / 1e9)
            seconds[key] = seconds.get(key, 0.0) + median
    print("| | by | GFLOP/s (least–most of 8 shapes) | all, ms |")
    print("|---|---|---|---|")
    for (kind, way), found in speeds.items():
        spread = f"{min(found):.0f}–{max(found):.0f}"
        print(f"| {kind} | {way} | {spread} | {1e3 * seconds[kind, way]:.0f} |")


if __name__ == "__main__":
    main()
