"""The pictures of a report, as Plotly figure descriptions (plain data, drawn by the browser)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

BLUE, ORANGE, GREEN, GREY, RED = "#2563eb", "#ea7317", "#0f9d6b", "#94a3b8", "#d1495b"
MOST_POINTS = 2000
LATER_VALIDATIONS = 2
Translate = Callable[[str], str]


def bits_per_byte_bars(evaluate: dict[str, Any], t: Translate) -> dict[str, Any]:
    """Draws bits per byte of the model and the baselines with their intervals."""
    rows: list[tuple[str, dict[str, Any], str]] = []
    test = evaluate["test"]
    for key, label in (
        ("byte_trigram_bits_per_byte", "byte 3-grams, test"),
        ("xz_bits_per_byte", "xz -9e, test"),
    ):
        if key in test:
            rows.append((t(label), test[key], GREY))
    for split, colour in (("train", BLUE), ("validation", BLUE), ("test", ORANGE)):
        rows.append((t("model, " + split), evaluate[split]["bits_per_byte"], colour))
    metrics = [metric for _, metric, _ in rows]
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
                    "array": [(m["high"] or m["value"]) - m["value"] for m in metrics],
                    "arrayminus": [m["value"] - (m["low"] or m["value"]) for m in metrics],
                    "thickness": 1.5,
                },
                "text": [f"{m['value']:.3f}" for m in metrics],
                "textposition": "inside",
                "insidetextanchor": "start",
                "insidetextfont": {"color": "white"},
                "hovertemplate": "%{y}: %{x:.4f}<extra></extra>",
            }
        ],
        "layout": {
            "xaxis": {
                "title": {"text": t("bits per byte (less is better)")},
                "rangemode": "tozero",
            },
            "yaxis": {"automargin": True},
            "height": 90 + 46 * len(rows),
        },
    }


def training_curves(
    log: list[dict[str, Any]], t: Translate, steered_by: str = "bits_per_byte"
) -> dict[str, Any]:
    """Draws loss, validation and learning rate against tokens."""
    name = f"validation_{steered_by}"
    unit = t("bits per byte") if steered_by == "bits_per_byte" else steered_by
    steps = [row for row in log if row.get("loss") is not None]
    smooth = _smoothed([row["loss"] for row in steps])
    steps, losses = _thinned(steps), _thinned(smooth)
    checks = [row for row in log if name in row]
    tokens = [row["tokens"] for row in steps]
    marks = [_upright(row["tokens"], t("skipped"), GREY) for row in log if "skipped" in row]
    marks += [_upright(tokens, t("gone back"), RED) for tokens in _rewound(log)]
    if (parted := part_of_ways(log)) is not None:
        marks.append(_upright(parted["tokens"], t("train and validation part"), RED))
    return {
        "data": [
            _line(tokens, [row["loss"] for row in steps], t("loss of each step"), BLUE)
            | {"opacity": 0.25, "hoverinfo": "skip"},
            _line(tokens, losses, t("training loss"), BLUE),
            _line(
                [row["tokens"] for row in checks],
                [row[name] for row in checks],
                f"{t('validation')}, {unit}",
                ORANGE,
            )
            | {"yaxis": "y2", "mode": "lines+markers"},
            _line(tokens, [row["learning_rate"] for row in steps], t("learning rate"), GREEN)
            | {"yaxis": "y3"},
        ],
        "layout": {
            "height": 520,
            "shapes": [shape for shape, _ in marks],
            "annotations": [words for _, words in marks],
            "xaxis": {"title": {"text": t("tokens")}, "anchor": "y3"},
            "yaxis": {"domain": [0.34, 1], "title": {"text": t("loss, nats per token")}},
            "yaxis2": {
                "overlaying": "y",
                "side": "right",
                "automargin": True,
                "title": {"text": unit},
                "tickformat": ".2f",
                "showgrid": False,
            },
            "yaxis3": {
                "domain": [0, 0.24],
                "title": {"text": t("learning rate")},
                "rangemode": "tozero",
            },
            "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02},
            "hovermode": "x unified",
        },
    }


def part_of_ways(log: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Gives the best validation, where training went on to learn what validation does not share.

    That is where all of several later validations are worse while the loss still fell; None where
    there is no such step.
    """
    checks = [row for row in log if "validation_bits_per_byte" in row]
    if not checks:
        return None
    best = min(range(len(checks)), key=lambda i: checks[i]["validation_bits_per_byte"])
    if len(checks) - best <= LATER_VALIDATIONS:
        return None
    losses = [row for row in log if row.get("loss") is not None]
    smooth = _smoothed([row["loss"] for row in losses])
    step = checks[best]["step"]
    before = [loss for row, loss in zip(losses, smooth, strict=True) if row["step"] <= step]
    return checks[best] if before and smooth[-1] < before[-1] else None


def _rewound(log: list[dict[str, Any]]) -> list[int]:
    """Gives the tokens at which training went back to a checkpoint."""
    found, tokens = [], 0
    for row in log:
        if "rewound_from" in row:
            found.append(tokens)
        tokens = row.get("tokens", tokens)
    return found


def _upright(tokens: int, words: str, colour: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draws a line at a number of tokens, with words."""
    place = {"xref": "x", "yref": "paper"}
    line = {"color": colour, "dash": "dot", "width": 1.5}
    return (
        {"type": "line", **place, "x0": tokens, "x1": tokens, "y0": 0, "y1": 1, "line": line},
        {
            **place,
            "x": tokens,
            "y": 1,
            "text": words,
            "showarrow": False,
            "textangle": -90,
            "xanchor": "right",
            "yanchor": "top",
            "font": {"color": colour, "size": 11},
        },
    )


def funnel(corpus: dict[str, Any], t: Translate) -> dict[str, Any]:
    """Draws how many documents came in, what each step dropped, and the splits."""
    counts = corpus["funnel"]
    left = counts["read"]["documents"]
    rows = [(t("read"), left, GREY)]
    for reason, dropped in counts["dropped"].items():
        left -= dropped["documents"]
        # A bar is what is left; one document of many would not be seen in it.
        rows.append((f"− {dropped['documents']:,} {t(reason)}", left, GREY))
    rows.append((t("kept"), counts["kept"]["documents"], BLUE))
    return {
        "data": [
            {
                "type": "funnel",
                "y": [label for label, _, _ in rows],
                "x": [count for _, count, _ in rows],
                "marker": {"color": [colour for _, _, colour in rows]},
                "textinfo": "value+percent initial",
            }
        ],
        "layout": {"height": 80 + 56 * len(rows), "yaxis": {"automargin": True}},
    }


def stage_times(stages: dict[str, Any], t: Translate) -> dict[str, Any]:
    """Draws the wall and processor time of each stage."""
    names = list(stages)[::-1]

    def bars(key: str, label: str, colour: str) -> dict[str, Any]:
        return {
            "type": "bar",
            "orientation": "h",
            "name": t(label),
            "y": names,
            "x": [stages[name][key] for name in names],
            "marker": {"color": colour},
            "hovertemplate": "%{y}: %{x:.1f} s<extra></extra>",
        }

    return {
        "data": [
            bars("cpu_seconds", "processor time", GREY),
            bars("wall_seconds", "wall time", BLUE),
        ],
        "layout": {
            "barmode": "group",
            "height": 110 + 40 * len(names),
            "xaxis": {"title": {"text": t("seconds")}},
            "yaxis": {"automargin": True},
            "legend": {
                "orientation": "h",
                "yanchor": "bottom",
                "y": 1.02,
                "traceorder": "reversed",
            },
        },
    }


def expert_load(loads: list[list[float]], first_layer: int, t: Translate) -> dict[str, Any]:
    """Draws how busy each expert of each layer was, against the average of its layer.

    Args:
        loads: shares of the tokens, `(layers, experts)`.
        first_layer: number of the first layer that has experts.
        t: translates.
    """
    against = [[share * len(layer) for share in layer] for layer in loads]
    return {
        "data": [
            {
                "type": "heatmap",
                "z": against,
                "y": [first_layer + index for index in range(len(loads))],
                "zmid": 1.0,
                "zmin": 0.0,
                "zmax": max(2.0, max(max(layer) for layer in against)),
                "colorscale": [[0, BLUE], [0.5, "#f8fafc"], [1, ORANGE]],
                "hovertemplate": f"{t('layer')} %{{y}}, {t('expert')} %{{x}}: %{{z:.2f}}"
                "<extra></extra>",
            }
        ],
        "layout": {
            "xaxis": {"title": {"text": t("expert")}},
            "yaxis": {"title": {"text": t("layer")}, "dtick": max(1, len(loads) // 12)},
            "height": 150 + 22 * min(len(loads), 24),
        },
    }


def _line(x: list[Any], y: list[Any], name: str, colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "name": name,
        "line": {"color": colour, "width": 2},
    }


def _smoothed(values: list[float], decay: float = 0.95) -> list[float]:
    """Gives the exponential moving average, corrected for its start."""
    average, weight, smooth = 0.0, 0.0, []
    for value in values:
        average = decay * average + (1 - decay) * value
        weight = decay * weight + (1 - decay)
        smooth.append(average / weight)
    return smooth


def _thinned(values: list[Any]) -> list[Any]:
    """Gives at most about `MOST_POINTS` of the values, evenly, the last one among them."""
    every = max(1, len(values) // MOST_POINTS)
    kept = values[::every]
    return kept if not values or kept[-1] is values[-1] else [*kept, values[-1]]
