"""`search.html`: which settings were tried, and which mattered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tianti.messages import tr_in
from tianti.runs.report import write_page as write_any_page
from tianti.search import pictures


def write_page(path: Path, results: dict[str, Any]) -> None:
    """Writes the page of a search.

    Args:
        path: the file to write.
        results: what `search.json` holds.
    """

    def drawn(language: str) -> dict[str, Any]:
        def t(text: str) -> str:
            return tr_in(language, text)

        found = {"history": pictures.history(results, t), "trials": pictures.curves(results, t)}
        if results["importance"]:
            found["importance"] = pictures.importance(results, t)
        return found | pictures.slices(results, t)

    ended = [row for row in results["trials"] if row["validation"] is not None]
    write_any_page(
        path,
        "search.html.j2",
        drawn,
        title=results["name"],
        folder=path.parent.as_posix(),
        results=results,
        ranked=sorted(ended, key=lambda row: row["validation"], reverse=results["more_is_better"]),
        pruned=sum(row["state"] == "pruned" for row in results["trials"]),
        failed=[row for row in results["trials"] if row["state"] == "fail"],
    )
