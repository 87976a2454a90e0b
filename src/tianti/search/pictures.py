"""The pictures of a search, as Plotly figure descriptions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from tianti.runs.figures import BLUE, GREY, ORANGE

Translate = Callable[[str], str]


def named(results: dict[str, Any], t: Translate) -> str:
    """Gives what the figure of a validation is called."""
    if results["figure"] == "bits_per_byte":
        return t("validation, bits per byte")
    return f"{t('validation')}, {t(results['figure'])}"


def importance(results: dict[str, Any], t: Translate) -> dict[str, Any]:
    """Draws how much each setting decided."""
    rows = sorted(results["importance"].items(), key=lambda row: row[1])
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "y": [name for name, _ in rows],
                "x": [share for _, share in rows],
                "marker": {"color": BLUE},
                "text": [f"{share:.0%}" for _, share in rows],
                "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
            }
        ],
        "layout": {
            "xaxis": {"title": {"text": t("share of what decided")}, "tickformat": ".0%"},
            "yaxis": {"automargin": True},
            "height": 110 + 40 * len(rows),
        },
    }


def history(results: dict[str, Any], t: Translate) -> dict[str, Any]:
    """Draws the trials in their order, and the best so far."""
    complete = [row for row in results["trials"] if row["state"] == "complete"]
    chosen = max if results["more_is_better"] else min
    values = [row["validation"] for row in complete]
    best = list(itertools.accumulate(values, chosen))
    pruned = [row for row in results["trials"] if row["state"] == "pruned" and row["validations"]]
    numbers = [row["number"] for row in complete]
    return {
        "data": [
            _dots(pruned, [_last(row) for row in pruned], t("stopped early"), GREY),
            _dots(complete, [_last(row) for row in complete], t("trained to the end"), BLUE),
            {
                "type": "scatter",
                "mode": "lines",
                "name": t("best so far"),
                "x": numbers,
                "y": best,
                "line": {"color": ORANGE, "shape": "hv"},
            },
        ],
        "layout": {
            "xaxis": {"title": {"text": t("trial")}},
            "yaxis": {"title": {"text": named(results, t)}},
            "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02},
            "height": 380,
        },
    }


def curves(results: dict[str, Any], t: Translate) -> dict[str, Any]:
    """Draws the validations of every trial; the best one stands out."""
    best = (results["best"] or {}).get("number")
    data = []
    for row in sorted(results["trials"], key=lambda row: row["number"] == best):
        stands_out = row["number"] == best
        colour = ORANGE if stands_out else BLUE if row["state"] == "complete" else GREY
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if stands_out else "lines",
                "name": f"{t('trial')} {row['number']}",
                "x": [check["number"] for check in row["validations"]],
                "y": [check["value"] for check in row["validations"]],
                "line": {"color": colour, "width": 3 if stands_out else 1},
                "showlegend": False,
            }
        )
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": t("validation number")}},
            "yaxis": {"title": {"text": named(results, t)}},
            "height": 380,
        },
    }


def slices(results: dict[str, Any], t: Translate) -> dict[str, dict[str, Any]]:
    """Draws the trials against each setting, one picture each."""
    complete = [row for row in results["trials"] if row["state"] == "complete"]
    found = {}
    for index, name in enumerate(results["searched"]):
        values = [row["settings"].get(name) for row in complete]
        log = "log=True" in results["searched"][name]
        words = any(isinstance(value, str | bool) for value in values)
        dots = _dots(complete, [_last(row) for row in complete], name, BLUE)
        found[f"slice-{index}"] = {
            "data": [dots | {"x": [str(value) for value in values] if words else values}],
            "layout": {
                "xaxis": {
                    "title": {"text": name},
                    "type": "category" if words else "log" if log else "linear",
                },
                "yaxis": {"title": {"text": named(results, t)}},
                "height": 320,
                "showlegend": False,
            },
        }
    return found


def _last(row: dict[str, Any]) -> float:
    value = row["validation"]
    return value if value is not None else row["validations"][-1]["value"]


def _dots(rows: list[dict[str, Any]], values: list[float], name: str, colour: str) -> dict:
    shown = ["<br>".join(f"{k} = {v}" for k, v in row["settings"].items()) for row in rows]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [row["number"] for row in rows],
        "y": values,
        "text": shown,
        "marker": {"color": colour, "size": 9},
        "hovertemplate": "%{y:.4f}<br>%{text}<extra></extra>",
    }
