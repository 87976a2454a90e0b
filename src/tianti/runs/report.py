"""`report.html`: a run to look at, in one file that opens without a network, English and 中文."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from tianti.files import write_text
from tianti.messages import tr_in
from tianti.runs import figures
from tianti.train.log import read_log
from tianti.units import format_bytes, format_count, format_duration


def write_report(path: Path, run: Path, results: dict[str, Any]) -> None:
    """Writes the report of a run from its results, training log and samples.

    Args:
        path: the file to write.
        run: folder of the run.
        results: what `results.json` holds.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters.update(count=format_count, size=format_bytes, duration=format_duration)
    folder = resources.files("tianti.runs").joinpath("templates")
    template = environment.from_string(folder.joinpath("report.html.j2").read_text("utf-8"))
    log = read_log(run / "train" / "log.jsonl")
    html = template.render(
        results=results,
        run=run.as_posix(),
        t=_both_languages,
        evaluate=results.get("evaluate"),
        train=results.get("train"),
        corpus=results.get("corpus"),
        samples=_read_samples(run / "generate" / "samples.jsonl"),
        figures={
            language: json.dumps(_figures(results, log, language)).replace("</", "<\\/")
            for language in ("en", "zh-CN")
        },
        style=folder.joinpath("report.css").read_text("utf-8"),
        script=folder.joinpath("report.js").read_text("utf-8"),
        plotly=_plotly_script(),
    )
    write_text(path, html)


def _figures(results: dict[str, Any], log: list[dict[str, Any]], language: str) -> dict[str, Any]:
    def t(text: str) -> str:
        return tr_in(language, text)

    drawn: dict[str, Any] = {"stages": figures.stage_times(results["stages"], t)}
    if "corpus" in results:
        drawn["funnel"] = figures.funnel(results["corpus"], t)
    if log:
        drawn["curves"] = figures.training_curves(log, t)
    if "evaluate" in results:
        drawn["bits"] = figures.bits_per_byte_bars(results["evaluate"], t)
    return drawn


def _both_languages(text: str) -> Any:
    """Gives markup that holds a text in every language; the page shows one of them."""
    from markupsafe import Markup

    spans = (
        Markup('<span lang="{}">{}</span>').format(language, tr_in(language, text))
        for language in ("en", "zh-CN")
    )
    return Markup("").join(spans)


def _read_samples(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _plotly_script() -> str:
    return resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text("utf-8")
