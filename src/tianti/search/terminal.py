"""What a person sees on the terminal once a search is there."""

from __future__ import annotations

from tianti.messages import tr
from tianti.runs.terminal import show
from tianti.search.study import PAGE, Search

SHOWN = 5
OWN = "the recipe's own settings"


def say_search(found: Search) -> None:
    """Shows the best trials, what mattered, and how to go on."""
    results = found.results
    rows = [row for row in results["trials"] if row["validation"] is not None]
    rows.sort(key=lambda row: row["validation"], reverse=results["more_is_better"])
    if not rows:
        show(tr("No trial came to its end."))
    elif results["figure"] == "bits_per_byte":
        show(tr("Validation, bits per byte (less is better):"), "bold")
    elif results["more_is_better"]:
        show(tr("Validation, {figure} (more is better):", figure=results["figure"]), "bold")
    else:
        show(tr("Validation, {figure} (less is better):", figure=results["figure"]), "bold")
    own = [row for row in rows[SHOWN:] if row["default"]]
    for row in rows[:SHOWN] + own:
        settings = "  ".join(f"{name}={_short(value)}" for name, value in row["settings"].items())
        mark = f"  ({tr(OWN)})" if row["default"] else ""
        show(f"  {row['validation']:.4f}  {settings}{mark}")
    if results["importance"]:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in results["importance"].items())
        show(tr("What mattered: {shares}", shares=shares))
    show(tr("Report: {path}", path=found.path / PAGE))
    if best := results["best"]:
        out = f" --out {best['run']}" if best["run"] else ""
        show(tr("Next: {command}", command=f"tianti run {best['recipe']}{out}"))


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
