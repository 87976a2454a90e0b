"""What a run found, as one JSON object: `results.json`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tianti.files import write_json
from tianti.messages import in_all_languages
from tianti.recipe import Recipe
from tianti.runs.manifest import Manifest

RESULTS = "results.json"


def collect_results(
    recipe: Recipe,
    run: Path,
    manifests: dict[str, Manifest],
    reasons: list[tuple[str, str, str]],
) -> dict[str, Any]:
    """Gives the results of a run; every metric is `{"value", "low", "high", "n"}` under its stage
    and split.
    """
    results: dict[str, Any] = {
        "format": 1,
        "name": recipe.name,
        "run": str(run),
        "model": str(run / "model") if "model" in manifests else None,
    }
    for name, manifest in manifests.items():
        results[name if name != "model" else "model_stage"] = manifest.metrics
    results["stages"] = {
        name: {
            "fingerprint": manifest.fingerprint,
            "started": manifest.started,
            "wall_seconds": manifest.wall_seconds,
            "cpu_seconds": manifest.cpu_seconds,
            "peak_memory_bytes": manifest.peak_memory_bytes,
            "versions": manifest.versions,
            **({"test_reads": manifest.test_reads} if manifest.test_reads else {}),
        }
        for name, manifest in manifests.items()
    }
    results["settings"] = [
        {
            "setting": setting,
            "value": value,
            "reason": reason,
            # The page is read in either language, whichever the run was started in.
            "in_languages": {"value": in_all_languages(value), "reason": in_all_languages(reason)},
        }
        for setting, value, reason in reasons
    ]
    return without_nan(results)


def write_results(run: Path, results: dict[str, Any]) -> None:
    """Writes `results.json`."""
    write_json(run / RESULTS, results)


def without_nan(value: Any) -> Any:
    """Gives a value in which what is not a finite number is None, as JSON wants it."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
