"""Job files that start a recipe on many machines: a Slurm script, or a Kubernetes Job."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

PORT = 29_500


@dataclass(frozen=True)
class Job:
    """What is to be started where.

    Args:
        name: of the job.
        command: arguments of `tianti`, such as `run recipe.yaml`.
        machines: how many.
        per_machine: processes on each, one for each GPU.
        hours: the longest it may run.
        folder: that all machines see; runs lie below it.
        restarts: how often lost processes are started anew.
        partition: of Slurm; the cluster's own choice when None.
        image: of the containers of Kubernetes.
        claim: of the volume that holds the folder, on Kubernetes.
    """

    name: str
    command: list[str]
    machines: int
    per_machine: int
    hours: float = 24.0
    folder: str = "."
    restarts: int = 3
    partition: str | None = None
    image: str = "IMAGE"
    claim: str = "CLAIM"

    @property
    def label(self) -> str:
        """Gives the name in the letters that both take."""
        return re.sub(r"[^a-z0-9-]+", "-", self.name.lower()).strip("-")[:50] or "tianti"


def slurm_script(job: Job) -> str:
    """Gives a script for `sbatch`."""
    return _filled("slurm.sh.j2", job)


def kubernetes_job(job: Job) -> str:
    """Gives a Service and an indexed Job for `kubectl apply -f`."""
    return _filled("kubernetes.yaml.j2", job)


def _filled(template: str, job: Job) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(
        job=job,
        port=PORT,
        minutes=max(1, round(job.hours * 60)),
        command=shlex.join(job.command),
        quoted=shlex.quote,
        # A volume is mounted somewhere, whatever the folder is called here.
        folder=job.folder if job.folder.startswith("/") else "/work",
    )
