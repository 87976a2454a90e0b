"""What a person sees on the terminal of evaluations and comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tianti.judge.compare import letters
from tianti.messages import tr
from tianti.runs.terminal import say_metric, show

_CERTAIN = 0.05
_FEW_STEPS = 4


def say_evaluation(results: dict[str, dict[str, Any]], page: Path) -> None:
    """Shows the figures of each task, the headline first."""
    for name, result in results.items():
        show(f"{name}  {result['description']}", "bold")
        ordered = [result["headline"], *(k for k in result["figures"] if k != result["headline"])]
        for key in ordered:
            say_metric(tr(key), result["figures"][key])
            if key in result["chances"]:
                show(f"  {tr('by guessing'):<24} {result['chances'][key]:.4f}")
        for other, value in result["published"].items():
            show(f"  {other:<24} {value:.4f}  ({tr('published')})")
        known = result["contamination"]
        if known and known["touched"]["n"]:
            clean = known["clean"]["figure"]
            show(
                "  "
                + tr(
                    "{count} items stand in part in the training text; without them {value}",
                    count=known["touched"]["n"],
                    value=f"{clean['value']:.4f}" if clean else "–",
                ),
                "yellow",
            )
        if result["truncated"]:
            show(
                "  "
                + tr(
                    "{count} items were longer than the context: their beginning was left out",
                    count=result["truncated"],
                ),
                "yellow",
            )
        if result["few_shot"]["left_out"]:
            show(
                "  "
                + tr(
                    "{count} examples were left out because they are tested",
                    count=result["few_shot"]["left_out"],
                ),
                "yellow",
            )
    show(tr("Report: {path}", path=page))


def say_steps(found: dict[int, dict[str, dict[str, Any]]], page: Path) -> None:
    """Shows the headline of each task at each step."""
    for name, result in next(iter(found.values())).items():
        show(f"{name}  {tr(result['headline'])}", "bold")
        for step, results in found.items():
            headline = results[name]["figures"][results[name]["headline"]]
            say_metric(f"{tr('step')} {step:,}", headline)
    if len(found) > 1:
        show(tr("Report: {path}", path=page))
    if len(found) < _FEW_STEPS:
        show(
            tr(
                "{count} checkpoints are kept; train.keep_checkpoints, set before training, keeps"
                " more",
                count=len(found),
            )
        )


def say_comparison(compared: dict[str, Any], page: Path | None = None) -> None:
    """Shows each figure of all models, the differences to the first and their p."""
    names = letters(len(compared["models"]))
    told = zip(names, compared["models"], strict=True)
    show("   ".join(f"{letter} {model['name']}" for letter, model in told), "bold")
    for name, task in compared["tasks"].items():
        show(f"{name}  n={task['n']}", "bold")
        for letter, second, differences in zip(
            names[1:], task["figures"][1:], task["differences"], strict=True
        ):
            for key, found in differences.items():
                interval = ""
                if found["low"] is not None and found["low"] == found["low"]:
                    interval = f" [{found['low']:+.4f}, {found['high']:+.4f}]"
                chance = "" if found["p"] is None else f"  p={found['p']:.4f}"
                sure = "" if found["p"] is None or not found["p"] <= _CERTAIN else "  *"
                show(
                    f"  {tr(key):<24} A {task['figures'][0][key]['value']:.4f}"
                    f"  {letter} {second[key]['value']:.4f}"
                    f"  A−{letter} {found['value']:+.4f}{interval}{chance}{sure}"
                )
    show(tr("* would come by chance in less than 5 % of comparisons of equals"))
    if page is not None:
        show(tr("Report: {path}", path=page))


def say_tasks(tasks: dict[str, Any]) -> None:
    """Lists the tasks that come along."""
    for name, task in tasks.items():
        show(f"{name:<20} {task.kind:<13} {task.language:<3} {task.description}")
    show(tr("Their data lies in the folder that --data or TIANTI_DATA names."))
