"""Job files are what their readers take: bash that parses, YAML with the right places."""

from __future__ import annotations

import shlex
import subprocess

import pytest
import yaml

from tianti.scale.jobs import Job, kubernetes_job, slurm_script

JOB = Job("My Run", ["run", "my recipe.yaml", "train.budget=1B tokens"], 4, 8, hours=36.5)


def test_a_slurm_script_is_bash_and_says_what_is_wanted(tmp_path):
    text = slurm_script(JOB)
    file = tmp_path / "job.sh"
    file.write_text(text)
    subprocess.run(["bash", "-n", file], check=True)
    assert "#SBATCH --nodes=4" in text
    assert "#SBATCH --gpus-per-node=8" in text
    assert "#SBATCH --time=36:30:00" in text
    # What bash makes of the last command are the arguments that were given.
    words = shlex.split(text[text.index("srun") :].replace("\\\n", " "))
    assert words[words.index("tianti") + 1 :] == JOB.command
    assert {"--nnodes=4", "--nproc-per-node=8"} <= set(words)


def test_a_kubernetes_job_is_yaml_that_has_all_machines_meet():
    service, job = yaml.safe_load_all(kubernetes_job(JOB))
    spec = job["spec"]
    pod = spec["template"]["spec"]
    container = pod["containers"][0]
    assert service["metadata"]["name"] == job["metadata"]["name"] == pod["subdomain"] == "my-run"
    assert spec["completions"] == spec["parallelism"] == 4
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
    arguments = container["args"]
    assert "--master-addr=my-run-0.my-run" in arguments
    assert arguments[arguments.index("tianti") + 1 :] == JOB.command
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: big\ncorpus: {sources: [{builtin: python-docs}]}\n")
    return path


def test_the_command_prints_or_writes_a_job_and_starts_nothing(recipe, tmp_path, call):
    code, out, _ = call("launch", recipe, "--slurm", "--machines", 2)
    assert code == 0
    assert out.startswith("#!/bin/bash")
    file = tmp_path / "job.yaml"
    code, out, _ = call("launch", recipe, "--kubernetes", "--file", file)
    assert code == 0
    assert "kubectl apply" in out
    assert len(list(yaml.safe_load_all(file.read_text()))) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--slurm", "--kubernetes"],
        ["--slurm", "--machines", "3", "layout.shard=5", "layout.replicate=2"],
    ],
)
def test_what_cannot_be_started_is_refused(recipe, call, arguments):
    code, out, err = call("launch", recipe, *arguments)
    assert (code, out) == (2, "")
    assert "error" in err
