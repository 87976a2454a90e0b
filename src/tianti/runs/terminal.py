"""What a person sees on the terminal once a run or a plan is there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tianti.messages import tr
from tianti.runs.plan import Plan, Planned
from tianti.runs.runner import REPORT, Run
from tianti.runs.tuning_plan import TuningPlan
from tianti.units import format_bytes, format_count, format_duration

_ROWS = (
    ("bits_per_byte", "model"),
    ("xz_bits_per_byte", "xz -9e"),
    ("byte_trigram_bits_per_byte", "byte 3-grams, add-one"),
)


def show(text: str, style: str | None = None) -> None:
    """Prints a line of what was asked for: on standard output, so that it can be piped."""
    if not sys.stdout.isatty():
        print(text)
        return
    from rich.console import Console

    Console().print(text, style=style, markup=False, highlight=False)


def say_metric(label: str, metric: dict[str, Any]) -> None:
    """Shows a metric with its interval on one line."""
    interval = ""
    if metric["low"] is not None and metric["low"] == metric["low"]:
        interval = f"  [{metric['low']:.4f}, {metric['high']:.4f}]"
    show(f"  {label:<24} {metric['value']:.4f}{interval}  n={metric['n']}")


def say_results(run: Run) -> None:
    """Shows what a run found and how to go on."""
    if not run.done:
        show(tr("Nothing to do: every stage is up to date."))
    evaluate = run.results.get("evaluate")
    if evaluate and "figures" in evaluate:
        _say_tuned(run.results)
    elif evaluate:
        show(tr("Bits per byte on the test split (less is better):"), "bold")
        for key, label in _ROWS:
            if key in evaluate["test"]:
                say_metric(tr(label), evaluate["test"][key])
    show(tr("Report: {path}", path=run.path / REPORT))
    if run.results.get("model") and "examples" in run.results:
        show(tr("Next: tianti predict {path} FILE.jsonl", path=run.results["model"]))
    elif run.results.get("model"):
        show(tr("Next: tianti generate {path} --prompt '…'", path=run.results["model"]))


def _say_tuned(results: dict[str, Any]) -> None:
    """Shows the figures of a tuned network, and its worst classes."""
    evaluate = results["evaluate"]
    if not evaluate["figures"]:
        return
    show(tr("On the test examples:"), "bold")
    for name, figure in evaluate["figures"].items():
        say_metric(name, figure)
    if classes := evaluate.get("classes"):
        worst = sorted(classes.items(), key=lambda item: item[1]["f1"])[:5]
        told = ", ".join(f"{name} {row['f1']:.2f}" for name, row in worst)
        show(tr("  lowest F1: {classes}", classes=told))


def say_plan(plan: Planned, recipe: Path) -> None:
    """Shows what a run would do."""
    if isinstance(plan, Plan):
        first = tr("text"), format_bytes(plan.facts.train_bytes)
        guess = tr("The text has not been read yet: its figures are estimated from a part of it.")
    else:
        assert isinstance(plan, TuningPlan)
        first = tr("training examples"), f"{plan.examples['train']['examples']:,}"
        guess = tr("Tokens have not been counted yet: their number is estimated.")
    _say_planned(plan, first)
    if plan.estimated:
        show(guess)
    for warning in plan.warnings:
        show(warning, "yellow")
    show(tr("Next: tianti run {recipe}", recipe=recipe))


def _say_planned(plan: Planned, first: tuple[str, str]) -> None:
    show(tr("Stages"), "bold")
    for stage, status in plan.stages:
        show(f"  {stage:<10} {status}")
    show(tr("Settings"), "bold")
    for setting, value, reason in plan.derivation.reasons:
        show(f"  {setting:<24} {value:<24} {reason}")
    cost = plan.cost
    show(tr("What training takes"), "bold")
    rows = (
        first,
        (tr("weights"), format_count(plan.derivation.model.num_parameters())),
        (tr("tokens trained on"), format_count(plan.tokens)),
        (tr("arithmetic"), f"{cost.flops:.3g} FLOP"),
        (tr("memory"), format_bytes(cost.memory.total)),
        (tr("disk"), format_bytes(cost.checkpoint_disk + cost.tokens_disk)),
        (tr("training time"), format_duration(plan.seconds)),
    )
    for label, value in rows:
        show(f"  {label:<24} {value}")


def say_funnel(corpus: dict[str, Any]) -> None:
    """Shows how many documents were read, dropped for each reason, and kept."""
    funnel = corpus["funnel"]
    rows: list[tuple[str, Any]] = [(tr("read"), funnel["read"])]
    rows += [("− " + tr(reason), dropped) for reason, dropped in funnel["dropped"].items()]
    rows.append((tr("kept"), funnel["kept"]))
    for label, counts in rows:
        show(f"  {label:<28} {counts['documents']:>12,}  {format_bytes(counts['bytes']):>10}")
    if corpus["bad_inputs"]:
        show(
            tr(
                "{count} inputs could not be read; they are listed in quarantine.jsonl",
                count=f"{corpus['bad_inputs']:,}",
            ),
            "yellow",
        )


_BARS = " ▁▂▃▄▅▆▇█"


def say_overview(view: dict[str, Any]) -> None:
    """Shows what a corpus is like."""
    splits = ", ".join(f"{tr(name)} {count:,}" for name, count in view["splits"].items())
    show(
        f"{view['documents']:,} {tr('documents')}, {format_bytes(view['bytes'])} ({splits})", "bold"
    )
    total = max(sum(view["languages"].values()), 1)
    shares = [f"{name} {100 * n / total:.1f} %" for name, n in list(view["languages"].items())[:8]]
    show(f"  {tr('languages'):<24} {'  '.join(shares)}")
    for label, found in (("characters to a document", view["lengths"]), *view["quality"].items()):
        if found["counts"]:
            median = (
                f"{found['median']:.3g}" if found["median"] < 1000 else f"{found['median']:,.0f}"
            )
            edges = f"{found['edges'][0]:.3g} … {found['edges'][-1]:.3g}"
            show(f"  {tr(label):<24} {_sparkline(found['counts'])}  {median}  ({edges})")
    for title, rows in (
        (tr("Phrases that stand in most documents"), view["phrases"][:10]),
        (tr("What repeats"), view["clusters"][:8]),
    ):
        if rows:
            show(title, "bold")
        for row in rows:
            text = " ".join(row["text"].split())[:70]
            show(f"  {row['documents']:>8,}  {text}")
    for reason, samples in view["dropped"].items():
        show(tr("dropped: {reason}", reason=tr(reason)), "bold")
        for sample in samples[:2]:
            show("  " + " ".join(sample["text"].split())[:100])


def _sparkline(counts: list[int]) -> str:
    most = max(counts)
    return "".join(_BARS[-(-8 * count // most)] for count in counts)
