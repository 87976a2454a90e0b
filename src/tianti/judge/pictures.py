"""The pictures of evaluations, as Plotly figure descriptions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tianti.runs.figures import BLUE, GREY, ORANGE

Translate = Callable[[str], str]


def interval_bars(
    rows: list[tuple[str, dict[str, Any], str]], title: str, chance: float | None = None
) -> dict[str, Any]:
    """Draws figures with their intervals, the first on top, and a line where guessing stands."""
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": chance, "x1": chance}
    line |= {"line": {"dash": "dot", "width": 1.5, "color": GREY}}
    rows = rows[::-1]
    metrics = [metric for _, metric, _ in rows]

    def ends(name: str) -> list[float]:
        return [m["value"] if m[name] is None else m[name] for m in metrics]

    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "y": [label for label, _, _ in rows],
                "x": [metric["value"] for metric in metrics],
                "marker": {"color": [colour for _, _, colour in rows]},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [h - m["value"] for h, m in zip(ends("high"), metrics, strict=True)],
                    "arrayminus": [
                        m["value"] - low for low, m in zip(ends("low"), metrics, strict=True)
                    ],
                    "thickness": 1.5,
                    "color": GREY,
                },
                "hovertemplate": "%{y}: %{x:.4f}<extra></extra>",
            }
        ],
        "layout": {
            "xaxis": {"title": {"text": title}, "rangemode": "tozero"},
            "yaxis": {"automargin": True, "type": "category"},
            "height": 110 + 24 * len(rows),
            "shapes": [] if chance is None else [line],
        },
    }


def groups(result: dict[str, Any], t: Translate) -> dict[str, Any]:
    """Draws the headline by group, the lowest first."""
    found = sorted(result["groups"].items(), key=lambda row: row[1]["value"])
    rows = [(f"{name} (n={metric['n']})", metric, BLUE) for name, metric in found]
    chance = result["chances"].get(result["headline"])
    return interval_bars(rows, t(result["headline"]), chance)


def over_steps(
    steps: list[int], metrics: list[dict[str, Any]], title: str, t: Translate
) -> dict[str, Any]:
    """Draws a figure with its intervals over the steps of a training."""
    rows = sorted(zip(steps, metrics, strict=True), key=lambda row: row[0])
    values = [metric["value"] for _, metric in rows]

    def gaps(name: str) -> list[float]:
        return [abs((m["value"] if m[name] is None else m[name]) - m["value"]) for _, m in rows]

    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [step for step, _ in rows],
                "y": values,
                "line": {"color": BLUE},
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": gaps("high"),
                    "arrayminus": gaps("low"),
                    "thickness": 1.5,
                },
                "hovertemplate": "%{x:,}: %{y:.4f}<extra></extra>",
            }
        ],
        "layout": {
            "xaxis": {"title": {"text": t("step")}},
            "yaxis": {"title": {"text": title}},
            "height": 340,
        },
    }


def reliability(points: list[dict[str, Any]], t: Translate) -> dict[str, Any]:
    """Draws how often a model is right against how sure it is."""
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "x": [0, 1],
                "y": [0, 1],
                "line": {"color": GREY, "dash": "dot"},
                "name": t("as sure as it is right"),
            },
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [point["confidence"] for point in points],
                "y": [point["accuracy"] for point in points],
                "text": [f"n={point['n']}" for point in points],
                "line": {"color": ORANGE},
                "name": t("the model"),
            },
        ],
        "layout": {
            "xaxis": {"title": {"text": t("confidence")}, "range": [0, 1]},
            "yaxis": {"title": {"text": t("share that is right")}, "range": [0, 1]},
            "height": 380,
        },
    }


def confusion(details: dict[str, Any], t: Translate) -> dict[str, Any]:
    """Draws which class was taken for which, as shares of the true class."""
    table = details["confusion"]
    shares = [[cell / max(sum(row), 1) for cell in row] for row in table]
    return {
        "data": [
            {
                "type": "heatmap",
                "x": details["labels"],
                "y": details["labels"],
                "z": shares,
                "text": table,
                "texttemplate": "%{text}" if len(table) <= 20 else "",
                "colorscale": "Blues",
                "zmin": 0,
                "zmax": 1,
                "hovertemplate": "%{y} → %{x}: %{text}<extra></extra>",
            }
        ],
        "layout": {
            "xaxis": {"title": {"text": t("predicted")}, "type": "category", "automargin": True},
            "yaxis": {
                "title": {"text": t("true class")},
                "type": "category",
                "autorange": "reversed",
                "automargin": True,
            },
            "height": 260 + (18 if len(table) <= 30 else 5) * len(table),
        },
    }
