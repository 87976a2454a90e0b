"""`evaluate.html`: what a model can, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tianti.files import read_json
from tianti.judge import pictures
from tianti.judge.compare import letters, results_in
from tianti.messages import tr_in
from tianti.runs.figures import BLUE, ORANGE
from tianti.runs.report import write_page as write_any_page

PAGE = "evaluate.html"


def write_page(folder: Path) -> Path:
    """Writes the page of all evaluations in a folder; gives its path."""
    found = results_in(folder)
    results = {name: read_json(paths[0]) for name, paths in sorted(found.items())}

    def drawn(language: str) -> dict[str, Any]:
        def t(text: str) -> str:
            return tr_in(language, text)

        found = {}
        for name, result in results.items():
            details = result["details"]
            rows = [(t(key), metric, BLUE) for key, metric in result["figures"].items()]
            found[f"figures-{name}"] = pictures.interval_bars(
                _alike(rows, result), "", result["chances"].get("accuracy")
            )
            if result["groups"]:
                found[f"groups-{name}"] = pictures.groups(result, t)
            if details.get("reliability"):
                found[f"reliability-{name}"] = pictures.reliability(details["reliability"], t)
            if details.get("confusion"):
                found[f"confusion-{name}"] = pictures.confusion(details, t)
        return found

    last = max((paths[0] for paths in found.values()), key=lambda path: path.stat().st_mtime_ns)
    newest = results[last.parent.parent.name]
    path = folder / PAGE
    write_any_page(
        path,
        "evaluate.html.j2",
        drawn,
        title=newest["model"]["name"],
        folder=folder.as_posix(),
        results=results,
    )
    return path


def _alike(
    rows: list[tuple[str, dict[str, Any], str]], result: dict[str, Any]
) -> list[tuple[str, dict[str, Any], str]]:
    """Gives the rows that one axis can show: those of the headline's scale."""
    top = result["figures"][result["headline"]]["value"] or 0.0
    scale = 1.5 if abs(top) <= 1.5 else 110.0
    return [row for row in rows if abs(row[1]["value"] or 0.0) <= scale]


def write_comparison(path: Path, compared: dict[str, Any]) -> None:
    """Writes the page of models beside each other."""
    called = letters(len(compared["models"]))
    models = [
        f"{letter} {model['name']}"
        for letter, model in zip(called, compared["models"], strict=True)
    ]
    steps = [model.get("step") for model in compared["models"]]

    def drawn(language: str) -> dict[str, Any]:
        def t(text: str) -> str:
            return tr_in(language, text)

        found = {}
        for name, task in compared["tasks"].items():
            headline = task["headline"]
            metrics = [figures[headline] for figures in task["figures"]]
            if None in steps:
                colours = [BLUE, *[ORANGE] * (len(models) - 1)]
                rows = list(zip(models, metrics, colours, strict=True))
                found[f"figures-{name}"] = pictures.interval_bars(rows, t(headline))
            else:
                found[f"figures-{name}"] = pictures.over_steps(steps, metrics, t(headline), t)
        return found

    write_any_page(
        path,
        "compare.html.j2",
        drawn,
        title=" / ".join(model["name"] for model in compared["models"]),
        folder=path.parent.as_posix(),
        compared=compared,
        letters=called,
        models=models,
    )
