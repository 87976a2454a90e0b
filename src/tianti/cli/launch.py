"""`tianti launch`: writes the job file that starts a recipe on many machines."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from tianti.cli.options import Overrides, RecipeFile
from tianti.messages import tr


def launch_command(
    recipe: RecipeFile,
    overrides: Overrides = None,
    slurm: Annotated[bool, typer.Option("--slurm", help=tr("A script for sbatch."))] = False,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help=tr("A Service and a Job for kubectl apply."))
    ] = False,
    machines: Annotated[int, typer.Option(min=1, help=tr("Machines."))] = 2,
    per_machine: Annotated[
        int, typer.Option(min=1, help=tr("Processes on each machine, one for each GPU."))
    ] = 8,
    hours: Annotated[float, typer.Option(min=0.02, help=tr("The longest it may run."))] = 24.0,
    folder: Annotated[str, typer.Option(help=tr("A folder that all machines see."))] = ".",
    partition: Annotated[str | None, typer.Option(help=tr("Partition of Slurm."))] = None,
    image: Annotated[str, typer.Option(help=tr("Container image that has tianti."))] = "IMAGE",
    claim: Annotated[str, typer.Option(help=tr("Claim of the volume with the folder."))] = "CLAIM",
    file: Annotated[
        Path | None, typer.Option(help=tr("File to write; standard output when not given."))
    ] = None,
) -> None:
    """Writes a job file; starts nothing."""
    from tianti.errors import UserError
    from tianti.files import write_text
    from tianti.recipe import Recipe
    from tianti.scale.jobs import Job, kubernetes_job, slurm_script
    from tianti.scale.layout import refuse_untunable, settle

    if slurm == kubernetes:
        raise UserError(
            tr("say which kind of job file is wanted"),
            where="tianti launch",
            remedy=tr("Give --slurm or --kubernetes"),
        )
    loaded = Recipe.load(recipe, overrides or [])
    # A layout for another number of devices is better known now than in the queue.
    settled = settle(loaded.layout, machines * per_machine, per_machine)
    if loaded.tune is not None:
        refuse_untunable(settled)
    job = Job(
        name=loaded.name,
        command=["run", str(recipe), *(overrides or [])],
        machines=machines,
        per_machine=per_machine,
        hours=hours,
        folder=folder,
        partition=partition,
        image=image,
        claim=claim,
    )
    text = slurm_script(job) if slurm else kubernetes_job(job)
    if file is None:
        print(text, end="")
        return
    write_text(file, text)
    submit = f"sbatch {file}" if slurm else f"kubectl apply -f {file}"
    missing = "" if shutil.which(submit.split()[0]) else tr(" (not found here)")
    print(tr("Next: {command}", command=submit) + missing)
