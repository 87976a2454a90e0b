"""`report.html`: a run to look at, in one file that opens without a network, English and 中文."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from tianti.corpus.overview import OVERVIEW
from tianti.files import read_json, write_text
from tianti.messages import LANGUAGES, tr_in
from tianti.runs import figures
from tianti.runs.corpus_figures import corpus_figures
from tianti.train.log import read_log
from tianti.tune.config import PREDICTIONS, SHOWN
from tianti.tune.shown import shown_predictions
from tianti.units import format_bytes, format_count, format_duration


def write_report(path: Path, run: Path, results: dict[str, Any]) -> None:
    """Writes the report of a run from its results, training log and samples.

    Args:
        path: the file to write.
        run: folder of the run.
        results: what `results.json` holds.
    """
    log = read_log(run / "train" / "log.jsonl")
    if "examples" in results:
        return write_tuning_report(path, run, results, log)
    view = _read_view(run / "corpus" / OVERVIEW)
    write_page(
        path,
        "report.html.j2",
        lambda language: _figures(results, log, view, language),
        title=results["name"],
        results=results,
        run=run.as_posix(),
        evaluate=results.get("evaluate"),
        train=results.get("train"),
        parted=figures.part_of_ways(log),
        corpus=results.get("corpus"),
        steps=_steps(results),
        balance=results.get("tokens", {}).get("balance"),
        view=view,
        # Without the stage in the results, what lies there is of an earlier model.
        samples=_read_samples(run / "generate" / "samples.jsonl") if "generate" in results else [],
    )


def write_tuning_report(
    path: Path, run: Path, results: dict[str, Any], log: list[dict[str, Any]]
) -> None:
    """Writes the report of a tuning; see `write_report`."""
    judged = results.get("evaluate", {})
    write_page(
        path,
        "tuning.html.j2",
        lambda language: _tuning_figures(results, log, language),
        title=results["name"],
        results=results,
        run=run.as_posix(),
        train=results.get("train"),
        examples=results["examples"],
        tested=judged.get("figures", {}),
        classes=judged.get("classes"),
        groups=judged.get("groups"),
        wrong=shown_predictions(run / "evaluate" / PREDICTIONS) if judged else [],
        seen=_read_view(run / "train" / SHOWN),
    )


def _tuning_figures(
    results: dict[str, Any], log: list[dict[str, Any]], language: str
) -> dict[str, Any]:
    def t(text: str) -> str:
        return tr_in(language, text)

    drawn: dict[str, Any] = {"stages": figures.stage_times(results["stages"], t)}
    # Without the stage in the results, what lies there is of an earlier training.
    if log and "train" in results:
        drawn["curves"] = figures.training_curves(log, t, results["train"]["steered_by"])
    return drawn


def write_corpus_report(
    path: Path, folder: Path, view: dict[str, Any], summary: dict[str, Any] | None
) -> None:
    """Writes a page about a corpus alone.

    Args:
        path: the file to write.
        folder: the corpus.
        view: what `overview` gave.
        summary: the figures of the step that wrote it, where there are any.
    """

    def drawn(language: str) -> dict[str, Any]:
        def t(text: str) -> str:
            return tr_in(language, text)

        found = corpus_figures(view, t)
        return found | ({"funnel": figures.funnel(summary, t)} if summary else {})

    write_page(
        path,
        "inspect.html.j2",
        drawn,
        title=folder.name,
        folder=folder.as_posix(),
        view=view,
        summary=summary,
        steps=(summary or {}).get("steps"),
    )


def write_page(
    path: Path, name: str, drawn: Callable[[str], dict[str, Any]], **values: Any
) -> None:
    """Writes one page that needs no other file."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.PackageLoader("tianti.runs", "templates"),
    )
    environment.filters.update(count=format_count, size=format_bytes, duration=format_duration)
    environment.globals["t"] = _both_languages
    environment.globals["told"] = _in_languages
    folder = resources.files("tianti.runs").joinpath("templates")
    html = environment.get_template(name).render(
        **values,
        figures={
            language: json.dumps(drawn(language)).replace("</", "<\\/")
            for language in ("en", "zh-CN")
        },
        style=folder.joinpath("report.css").read_text("utf-8"),
        script=folder.joinpath("report.js").read_text("utf-8"),
        plotly=_plotly_script(),
    )
    write_text(path, html)


def _figures(
    results: dict[str, Any],
    log: list[dict[str, Any]],
    view: dict[str, Any] | None,
    language: str,
) -> dict[str, Any]:
    def t(text: str) -> str:
        return tr_in(language, text)

    drawn: dict[str, Any] = {"stages": figures.stage_times(results["stages"], t)}
    if "corpus" in results:
        drawn["funnel"] = figures.funnel(results["corpus"], t)
    if view is not None:
        drawn |= corpus_figures(view, t)
    if loads := results.get("train", {}).get("expert_load"):
        dense = results["train"]["depth"] - len(loads)
        drawn["experts"] = figures.expert_load(loads, dense, t)
    if log:
        drawn["curves"] = figures.training_curves(log, t)
    if "evaluate" in results:
        drawn["bits"] = figures.bits_per_byte_bars(results["evaluate"], t)
    return drawn


def _both_languages(text: str) -> Any:
    """Gives markup that holds a text in every language; the page shows one of them."""
    return _in_languages({language: tr_in(language, text) for language in LANGUAGES})


def _in_languages(texts: dict[str, str]) -> Any:
    """Gives markup that holds what is said in each language; the page shows one of them."""
    from markupsafe import Markup

    spans = (
        Markup('<span lang="{}">{}</span>').format(language, text)
        for language, text in texts.items()
    )
    return Markup("").join(spans)


def _steps(results: dict[str, Any]) -> dict[str, Any]:
    """Gives what the steps of both document stages took."""
    deciding = results.get("corpus", {}).get("seconds", {})
    return results.get("documents", {}).get("steps", {}) | {
        # Both stages write; the second one writes the splits.
        "splits" if name == "write" else name: {"seconds": seconds}
        for name, seconds in deciding.items()
    }


def _read_view(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.is_file() else None


def _read_samples(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def _plotly_script() -> str:
    return resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text("utf-8")
