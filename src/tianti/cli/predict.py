"""The command that applies a tuned model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tianti.cli.options import AsJson, print_json
from tianti.messages import tr


def predict_command(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help=tr("A tuned model/ folder, or its run."))
    ],
    source: Annotated[
        str, typer.Argument(metavar="FILE", help=tr("JSONL, CSV, TSV or Parquet; packed or not."))
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help=tr("JSONL file to write; shown when not given."))
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help=tr("What a column is called, such as text=sentence; repeatable.")),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help=tr("Most tokens written for an example."))
    ] = None,
    beams: Annotated[
        int | None,
        typer.Option(min=1, help=tr("Beginnings that a search for text goes on with.")),
    ] = None,
    device: Annotated[str, typer.Option(help=tr("auto, cpu, cuda or cuda:N."))] = "auto",
    as_json: AsJson = False,
) -> None:
    """Applies a tuned model to a file."""
    import json

    from tianti.api import predict
    from tianti.errors import UserError
    from tianti.progress import Display

    columns = None
    if column:
        if wrong := [one for one in column if "=" not in one]:
            raise UserError(
                tr("a column is written ours=theirs, such as text=sentence"), where=wrong[0]
            )
        columns = dict(one.split("=", 1) for one in column)
    found = predict(
        model,
        source,
        out,
        columns=columns,
        max_tokens=max_tokens,
        beams=beams,
        device=device,
        display=Display(),
    )
    if as_json:
        print_json({"examples": len(found), "out": None if out is None else str(out)})
    elif out is None:
        for one in found:
            print(json.dumps(one, ensure_ascii=False))
    else:
        print(tr("{count} predictions: {path}", count=f"{len(found):,}", path=out))
