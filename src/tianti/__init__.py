"""tianti (天梯): from a folder of text to a language model that is evaluated and writes.

>>> from tianti import Recipe, load_model, run
>>> finished = run(Recipe.load("recipes/quickstart.yaml"))       # doctest: +SKIP
>>> model = load_model(finished.path / "model")                   # doctest: +SKIP
>>> model.generate("Return the").text                             # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tianti.api import Model, load_model, run
    from tianti.errors import UserError
    from tianti.recipe import Recipe
    from tianti.runs.runner import Run

__all__ = ["Model", "Recipe", "Run", "UserError", "load_model", "run"]

_PLACES = {
    "Model": "tianti.api",
    "Recipe": "tianti.recipe",
    "Run": "tianti.runs.runner",
    "UserError": "tianti.errors",
    "load_model": "tianti.api",
    "run": "tianti.api",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: torch takes seconds, `--help` must not."""
    import importlib

    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'tianti' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
