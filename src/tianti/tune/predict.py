"""What a tuned model says of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from tianti.errors import UserError
from tianti.files import write_text
from tianti.progress import SILENT, Display
from tianti.tune.config import TuneConfig
from tianti.tune.examples import WANTED, read_examples
from tianti.tune.predictor import Predictor


def predict(
    folder: Path,
    source: str,
    out: Path | None,
    *,
    device: torch.device,
    columns: dict[str, str] | None = None,
    max_tokens: int | None = None,
    beams: int | None = None,
    display: Display = SILENT,
) -> list[dict[str, Any]]:
    """Applies a tuned model to a file.

    Args:
        folder: of the model.
        source: JSONL, CSV, TSV or Parquet; what is to be told need not be there.
        out: JSONL file to write, each line with its number in the source and what is told; none
            when not given.
        device: where it computes.
        columns: what columns are called, where that is not as in training.
        max_tokens: most tokens written for an example; as in training when not given.
        beams: beginnings that a search for text goes on with; as in training when not given.
        display: shows progress.

    Returns:
        What was written, one dictionary an example.

    Raises:
        UserError: an example is wrong, with file and line.
    """
    predictor = Predictor(folder, device)
    changes = {} if columns is None else {"columns": columns}
    try:
        reading = predictor.reading(**changes)
    except ValidationError as error:
        raise UserError(str(error.errors()[0]["msg"]), where="--column") from error
    rated = predictor.form.task == "reward"
    # An answer that is to be rated is there.
    kept = reading if rated else _without_answers(reading)
    examples = read_examples(source, kept, answered=rated)
    with display.task("predict", len(examples), "examples") as task:
        found = predictor(
            examples,
            max_tokens=max_tokens or reading.max_tokens,
            beams=beams or reading.searched,
            on_progress=task.advance,
        )
    predictor.encoder.tell_cut(display, len(examples))
    told = [
        {"line": int(example["place"].rpartition(":")[2]), **one}
        for example, one in zip(examples, found, strict=True)
    ]
    if out is not None:
        lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in told)
        write_text(out, lines)
    return told


def _without_answers(tune: TuneConfig) -> TuneConfig:
    """Gives the same without the columns that hold what is to be told."""
    kept = {name: theirs for name, theirs in tune.columns.items() if name not in WANTED}
    return tune.model_copy(update={"columns": kept})
