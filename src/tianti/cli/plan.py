"""`tianti plan`: what a recipe will do here, or take on devices elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tianti.cli.options import AsJson, OutFolder, Overrides, RecipeFile, print_json
from tianti.messages import tr


def plan_command(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: OutFolder = None,
    devices: Annotated[
        str | None,
        typer.Option(help=tr("Plan for devices that are not here, such as 64xH100-80GB.")),
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help=tr("Of one device for an hour: gives the cost."))
    ] = None,
    hardware: Annotated[
        Path | None, typer.Option(help=tr("A JSON file of further devices."))
    ] = None,
    figure: Annotated[
        list[str] | None,
        typer.Option(help=tr("A figure of the device, such as memory_gib=80; repeatable.")),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Foretells a run without doing anything."""
    from tianti.recipe import Recipe

    loaded = Recipe.load(recipe, overrides or [])
    if devices is None:
        from tianti.runs.plan import plan
        from tianti.runs.terminal import say_plan

        planned = plan(loaded, out)
        if as_json:
            print_json(planned.as_dict())
        else:
            say_plan(planned, recipe)
        return
    from tianti.runs.device_plan import plan_for_devices
    from tianti.runs.device_terminal import say_device_plan

    found = plan_for_devices(
        loaded, devices, hardware=hardware, figures=_figures(figure or []), price=price
    )
    if as_json:
        print_json(found.as_dict())
    else:
        say_device_plan(found, recipe)
    if not found.fits:
        raise typer.Exit(2)


def _figures(pairs: list[str]) -> dict[str, float]:
    from tianti.errors import UserError
    from tianti.scale.hardware import FIGURES

    figures: dict[str, float] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if name not in FIGURES or not number > 0:
            raise UserError(
                tr("{pair!r} is no figure of a device", pair=pair),
                where="--figure",
                remedy=tr("Wanted: {names}", names=", ".join(f"{name}=…" for name in FIGURES)),
            )
        figures[name] = int(number) if name == "per_machine" else number
    return figures
