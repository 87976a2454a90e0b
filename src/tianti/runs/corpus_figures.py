"""The pictures of a corpus: languages, lengths, and what quality rules look at."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from tianti.runs.figures import BLUE, GREEN, RED, Translate

_MOST_LANGUAGES = 12


def corpus_figures(view: dict[str, Any], t: Translate) -> dict[str, Any]:
    """Draws what `overview` gave.

    Args:
        view: the corpus.
        t: translates labels.
    """
    drawn = {"languages": _languages(view["languages"], t), "lengths": _lengths(view["lengths"], t)}
    if view["quality"]:
        drawn["quality"] = _quality(view["quality"], t)
    return drawn


def _languages(counts: dict[str, int], t: Translate) -> dict[str, Any]:
    names = list(counts)[:_MOST_LANGUAGES]
    total = max(sum(counts.values()), 1)
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "y": names[::-1],
                "x": [100 * counts[name] / total for name in names[::-1]],
                "marker": {"color": BLUE},
                "hovertemplate": "%{y}: %{x:.2f} %<extra></extra>",
            }
        ],
        "layout": {
            "height": 110 + 26 * max(len(names), 3),
            "xaxis": {"title": {"text": t("languages, % of documents")}, "rangemode": "tozero"},
            "yaxis": {"automargin": True, "type": "category"},
        },
    }


def _lengths(lengths: dict[str, Any], t: Translate) -> dict[str, Any]:
    edges = lengths["edges"]
    return {
        "data": [
            {
                "type": "bar",
                "x": [(left * right) ** 0.5 for left, right in pairwise(edges)],
                "y": lengths["counts"],
                "width": [right - left for left, right in pairwise(edges)],
                "marker": {"color": GREEN},
                "hovertemplate": "%{x:.0f}: %{y}<extra></extra>",
            }
        ],
        "layout": {
            "height": 300,
            "xaxis": {"type": "log", "title": {"text": t("characters to a document")}},
            "yaxis": {"title": {"text": t("documents")}},
        },
    }


def _quality(histograms: dict[str, Any], t: Translate) -> dict[str, Any]:
    """Draws a small histogram of each statistic; red lines are thresholds that are in force."""
    names = [name for name, found in histograms.items() if found["counts"]]
    columns = 3
    rows = max(-(-len(names) // columns), 1)
    data, shapes = [], []
    layout: dict[str, Any] = {
        "height": 60 + 170 * rows,
        "showlegend": False,
        "grid": {"rows": rows, "columns": columns, "pattern": "independent", "ygap": 0.45},
        "bargap": 0,
    }
    for number, name in enumerate(names):
        found, axis = histograms[name], str(number + 1) if number else ""
        edges = found["edges"]
        data.append(
            {
                "type": "bar",
                "x": [(left + right) / 2 for left, right in pairwise(edges)],
                "y": found["counts"],
                "marker": {"color": BLUE},
                "xaxis": f"x{axis}",
                "yaxis": f"y{axis}",
                "hovertemplate": "%{x:.3g}: %{y}<extra></extra>",
            }
        )
        for threshold in found.get("thresholds", []):
            shapes.append(
                {
                    "type": "line",
                    "xref": f"x{axis}",
                    "yref": f"y{axis} domain",
                    "x0": threshold,
                    "x1": threshold,
                    "y0": 0,
                    "y1": 1,
                    "line": {"color": RED, "width": 2},
                }
            )
        layout[f"xaxis{axis}"] = {"title": {"text": t(name), "standoff": 4}}
        layout[f"yaxis{axis}"] = {"showticklabels": False}
    return {"data": data, "layout": layout | {"shapes": shapes}}
