"""Models that are too large for any machine here: `python benchmarks/scale.py`.

Plans 7 B, 70 B and 405 B on 8 to 4,096 H100, puts published throughput beside what the planner
says of the published layout, shows how throughput holds up as devices are added, and lays networks
out on fake process groups (`tianti.scale.simulate`) to compare their memory with the planner's.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

from plan import MODELS, gpu_table, llama
from train_peers import Shape
from train_speed import our_settings

from tianti.model.config import TransformerConfig
from tianti.scale.estimate import Estimate, estimate
from tianti.scale.hardware import load_table
from tianti.scale.layout import Layout
from tianti.scale.memory import GIB, memory_of
from tianti.scale.planner import plan_layouts
from tianti.scale.work import Work
from tianti.train.config import TrainSettings

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
BEGIN, END = "<!-- benchmarks/scale.py -->", "<!-- end -->"
DEVICE = "H100-80GB"
COUNTS = (8, 64, 256, 512, 1024, 2048, 4096)
SEVEN = replace(llama(32, 4096, 11_008, 32), vocab_size=32_000, num_kv_heads=32)
MIXTURE = replace(
    llama(48, 4096, 12_288, 32),
    num_kv_heads=4,
    num_experts=128,
    experts_per_token=8,
    expert_width=1536,
)
# Rows of 8,192 tokens in a step: 4, 8 and 16 million tokens.
PLANNED = {"7 B": (SEVEN, 512), "70 B": (MODELS["70b"], 1024), "405 B": (MODELS["405b"], 2048)}
# Rows of a step for each device.
WEAK_ROWS, LIMIT = 2, 0.05
SIMULATED: dict[str, list[tuple[Layout, int, str]]] = {
    "7 B": [
        (Layout(shard=8), 1, "full"),
        (Layout(shard=64), 1, "selective"),
        (Layout(shard=8, tensor=8), 2, "selective"),
    ],
    "70 B": [
        (Layout(shard=256), 1, "full"),
        (Layout(shard=32, tensor=8), 1, "selective"),
        (Layout(shard=16, tensor=4, pipeline=4), 8, "full"),
    ],
    "405 B": [(Layout(shard=32, tensor=8, pipeline=16), 16, "full")],
    "mixture, 116 B": [(Layout(shard=1024, expert=16), 1, "full")],
}
SHAPES = {name: shape for name, (shape, _) in PLANNED.items()} | {"mixture, 116 B": MIXTURE}


def settings_of(shape: TransformerConfig, rows: int, **changes: object) -> TrainSettings:
    """Gives settings of training with AdamW in bfloat16."""
    like = Shape(0, 0, 0, 0, 0, shape.context, rows, 1)
    return our_settings(like, optimizer="adamw").model_copy(update=changes)


def planned() -> str:
    """Gives the best layout of each model on each number of devices, as Markdown."""
    lines = [
        f"| model | {DEVICE} | best layout | GiB | tokens/s a device | MFU |",
        "|---|---|---|---|---|---|",
    ]
    device = load_table()[DEVICE]
    for name, (shape, rows) in PLANNED.items():
        for count in COUNTS:
            best = plan_layouts(shape, settings_of(shape, max(rows, count)), count, device)[0]
            lines.append(f"| {name} | {count:,} | {_described(best.estimate)} |")
    return "\n".join(lines)


def _described(found: Estimate) -> str:
    work = found.work
    if not found.fits:
        return f"none fits: {found.memory.total / GIB:,.0f} GiB needed | – | – | – "
    speed = found.tokens_per_second / work.layout.devices
    how = f"{work.layout.describe()}; {work.micro_rows} rows at once, {work.checkpointing}"
    return f"{how} | {found.memory.total / GIB:.0f} | {speed:,.0f} | {found.mfu:.0%}"


def weak_scaling() -> str:
    """Gives throughput as devices and rows grow together, and where links become the limit."""
    device, limits = load_table()[DEVICE], {}
    lines = [
        "| devices | weights cut over all: tokens/s a device | waiting for links |"
        " best layout | tokens/s a device | waiting for links |",
        "|---|---|---|---|---|---|",
    ]
    shape = PLANNED["7 B"][0]
    for count in (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096):
        settings = settings_of(shape, WEAK_ROWS * count)
        whole = settings.model_copy(update={"micro_batch_rows": WEAK_ROWS})
        selective = whole.model_copy(update={"activation_checkpointing": "selective"})
        cut = estimate(Work(shape, selective, Layout(shard=count)), device)
        best = plan_layouts(shape, settings, count, device)[0].estimate
        cells = [f"{count:,}"]
        for name, one in (("cut over all", cut), ("in the best layout", best)):
            waiting = (one.seconds.exposed + one.seconds.tensor) / one.seconds.total
            if waiting > LIMIT:
                limits.setdefault(name, count)
            layout = [one.work.layout.describe()] if one is best else []
            speed = one.tokens_per_second / count
            cells += [*layout, f"{speed:,.0f}", f"{waiting:.1%}"]
        lines.append(f"| {' | '.join(cells)} |")
    named = [
        f"{name}: {f'from {limits[name]:,} devices on' if name in limits else 'up to 4,096 not'}"
        for name in ("cut over all", "in the best layout")
    ]
    words = "The network is the limit, a twentieth of the step and more, " + "; ".join(named)
    return "\n".join(lines) + f"\n\n{words}."


def _simulated(case: tuple[str, Layout, int, str]) -> tuple[float, float, int, float]:
    from tianti.scale.simulate import simulate

    warnings.filterwarnings("ignore")
    name, layout, micro_batches, checkpointing = case
    rows = layout.row_groups * micro_batches
    settings = settings_of(
        SHAPES[name],
        rows,
        micro_batch_rows=1,
        compile=False,
        activation_checkpointing=checkpointing,
    )
    work = Work(SHAPES[name], settings, layout)
    began = time.perf_counter()
    found = simulate(work)
    memory = memory_of(work, "gpu")
    said = memory.total - memory.reserve
    return found.peak, said, sum(found.sent.values()), time.perf_counter() - began


def simulated() -> str:
    """Gives memory of simulated steps beside the planner's, as Markdown."""
    cases = [(name, *case) for name, some in SIMULATED.items() for case in some]
    lines = [
        "| model | devices | layout | checkpointing | simulated, GiB | foretold | off by |"
        " given to collectives, GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    pool = concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
    with pool:
        # The longest first.
        order = sorted(cases, key=lambda case: -SHAPES[case[0]].num_parameters())
        found = dict(zip(map(str, order), pool.map(_simulated, order), strict=True))
    for case in cases:
        name, layout, micro, checkpointing = case
        peak, said, sent, seconds = found[str(case)]
        print(f"{name} {layout.describe()}: {seconds:.0f} s", file=sys.stderr)
        what = f"{layout.describe()}, {micro} micro-batches" if micro > 1 else layout.describe()
        lines.append(
            f"| {name} | {layout.devices:,} | {what} | {checkpointing} | {peak / GIB:.2f} |"
            f" {said / GIB:.2f} | {said / peak - 1:+.1%} | {sent / 1e9:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Writes all tables into docs/scale.md."""
    tables = (
        f"### Planned\n\nThe best of all layouts, AdamW, rows of 8,192 tokens.\n\n{planned()}\n\n"
        f"### Published and measured beside foretold\n\n{gpu_table()}\n\n"
        f"### As devices are added\n\n7 B, {WEAK_ROWS} rows for each.\n\n{weak_scaling()}\n\n"
        "### Simulated\n\nThe layout code itself on fake process groups and tensors without memory"
        " (`scale/simulate.py`), not compiled, the first rank; foretold without reserve."
        f"\n\n{simulated()}\n"
    )
    text = PAGE.read_text()
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(f"{text[:before]}\n\n{tables}\n{text[after:]}")


if __name__ == "__main__":
    main()
