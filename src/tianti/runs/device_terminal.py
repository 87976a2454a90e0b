"""What a person sees of a plan for devices."""

from __future__ import annotations

import sys
from pathlib import Path

from tianti.messages import tr
from tianti.runs.device_plan import DevicePlan
from tianti.runs.terminal import show
from tianti.scale.memory import GIB
from tianti.scale.planner import MEMORY_ERROR, TIME_ERROR
from tianti.units import format_count, format_duration


def say_device_plan(plan: DevicePlan, recipe: Path) -> None:
    """Shows the layouts, the best one first, and what to do next."""
    derivation, best = plan.derivation, plan.choices[0]
    shape = derivation.model
    title = tr(
        "{weights} weights on {count} × {device}",
        weights=format_count(shape.num_parameters()),
        count=plan.count,
        device=plan.device.name,
    )
    show(title, "bold")
    for setting, value, reason in derivation.reasons:
        show(f"  {setting:<24} {value:<24} {reason}")
    show(tr("Layouts, the best one first"), "bold")
    for number, choice in enumerate(plan.choices, 1):
        found = choice.estimate
        work = found.work
        what = f"{work.layout.describe()}, {work.micro_rows} × {shape.context}"
        what += f", checkpointing {work.checkpointing}"
        speed = tr(
            "{tokens} tokens/s, {share} of the peak, {memory} of {there} GiB",
            tokens=format_count(found.tokens_per_second),
            share=f"{found.mfu:.1%}",
            memory=f"{found.memory.total / GIB:.1f}",
            there=f"{plan.device.memory_gib:.4g}",
        )
        show(f"  {number}. {what}")
        show(f"     {speed}", None if found.fits else "red")
        show(f"     {choice.why}", "dim" if found.fits else "red")
    if not plan.fits:
        print(tr("Nothing fits. {remedy}", remedy=plan.remedy or ""), file=sys.stderr)
        return
    figures = best.as_dict(derivation.tokens, plan.price)
    show(tr("The best one, by kind"), "bold")
    memory = {k: v for k, v in figures["memory_gib"].items() if v >= 0.05}
    show(f"  {tr('memory, GiB'):<24} " + ", ".join(f"{k} {v:.1f}" for k, v in memory.items()))
    seconds = {k: v for k, v in figures["seconds"].items() if v >= 0.001}
    show(f"  {tr('a step, seconds'):<24} " + ", ".join(f"{k} {v:.3g}" for k, v in seconds.items()))
    rows = [
        (tr("tokens trained on"), format_count(derivation.tokens)),
        (tr("training time"), format_duration(figures["hours"] * 3600)),
    ]
    if figures["energy_kwh"]:
        rows.append((tr("energy"), f"{figures['energy_kwh']:,.0f} kWh"))
    if figures["cost"] is not None:
        rows.append((tr("cost"), f"{figures['cost']:,.0f}"))
    for label, value in rows:
        show(f"  {label:<24} {value}")
    errors = {"time": f"{TIME_ERROR:.0%}", "memory": f"{MEMORY_ERROR:.0%}"}
    show(tr("Times may be off by {time}, memory by {memory}.", **errors), "dim")
    command = f"tianti run {recipe} " + " ".join(plan.settings())
    show(tr("Next, there: {command}", command=command))
