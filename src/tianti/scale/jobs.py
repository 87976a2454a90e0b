"""Job files that start a recipe on many machines: a Slurm script, or a Kubernetes Job."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

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
    minutes = max(1, round(job.hours * 60))
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={job.label}",
        f"#SBATCH --nodes={job.machines}",
        "# One torchrun on each machine starts the processes there.",
        "#SBATCH --ntasks-per-node=1",
        f"#SBATCH --gpus-per-node={job.per_machine}",
        "# The longest it may run; the same job goes on from the last checkpoint.",
        f"#SBATCH --time={minutes // 60}:{minutes % 60:02d}:00",
        "# Five minutes before that, SIGTERM: what is done is saved.",
        "#SBATCH --signal=TERM@300",
        "# What a requeued job finds is what it left.",
        "#SBATCH --requeue",
        f"#SBATCH --output={job.label}-%j.log",
    ]
    if job.partition:
        lines.append(f"#SBATCH --partition={job.partition}")
    lines += [
        "set -euo pipefail",
        "# All machines must see this folder.",
        f"cd {shlex.quote(job.folder)}",
        "# The first machine is where the processes meet.",
        'head="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"',
        "# Add here what makes tianti known: module load …, source …/activate",
        "srun torchrun \\",
        f"  --nnodes={job.machines} --nproc-per-node={job.per_machine} \\",
        f"  --max-restarts={job.restarts} \\",
        f'  --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" --rdzv-endpoint="$head:{PORT}" \\',
        f"  -m tianti {shlex.join(job.command)}",
    ]
    return "\n".join(lines) + "\n"


def kubernetes_job(job: Job) -> str:
    """Gives a Service and an indexed Job for `kubectl apply -f`."""
    seconds = round(job.hours * 3600)
    arguments = [
        f"--nnodes={job.machines}",
        f"--nproc-per-node={job.per_machine}",
        "--node-rank=$(JOB_COMPLETION_INDEX)",
        f"--max-restarts={job.restarts}",
        f"--master-addr={job.label}-0.{job.label}",
        f"--master-port={PORT}",
        "-m",
        "tianti",
        *job.command,
    ]
    listed = "\n".join(f"            - {_quoted(argument)}" for argument in arguments)
    return f"""\
# The processes find the first machine by this name.
apiVersion: v1
kind: Service
metadata:
  name: {job.label}
spec:
  clusterIP: None
  # Names must be known before the processes have met.
  publishNotReadyAddresses: true
  selector:
    job-name: {job.label}
  ports:
    - port: {PORT}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {job.label}
spec:
  # One pod on each machine, numbered.
  completionMode: Indexed
  completions: {job.machines}
  parallelism: {job.machines}
  # A lost pod is started anew and all go on from the last checkpoint.
  backoffLimit: {job.restarts * job.machines}
  # The longest it may run, in seconds.
  activeDeadlineSeconds: {seconds}
  template:
    metadata:
      labels:
        job-name: {job.label}
    spec:
      # Pods are named JOB-NUMBER within the Service.
      subdomain: {job.label}
      restartPolicy: OnFailure
      # Time to save what is done after SIGTERM.
      terminationGracePeriodSeconds: 300
      affinity:
        podAntiAffinity:
          # No two on one machine.
          requiredDuringSchedulingIgnoredDuringExecution:
            - topologyKey: kubernetes.io/hostname
              labelSelector:
                matchLabels:
                  job-name: {job.label}
      containers:
        - name: tianti
          # An image that has tianti.
          image: {_quoted(job.image)}
          workingDir: {_quoted(job.folder if job.folder.startswith("/") else "/work")}
          command: ["torchrun"]
          args:
{listed}
          resources:
            limits:
              nvidia.com/gpu: {job.per_machine}
          volumeMounts:
            # All machines must see this folder.
            - name: work
              mountPath: {_quoted(job.folder if job.folder.startswith("/") else "/work")}
            # NCCL's shared memory: the 64 MB that pods have are too few.
            - name: shared-memory
              mountPath: /dev/shm
      volumes:
        - name: work
          persistentVolumeClaim:
            claimName: {_quoted(job.claim)}
        - name: shared-memory
          emptyDir:
            medium: Memory
"""


def _quoted(text: str) -> str:
    # A double-quoted YAML scalar is a JSON string.
    import json

    return json.dumps(text, ensure_ascii=False)
