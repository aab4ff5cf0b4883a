"""The files of `experiments/cluster` start what the programs accept, with what they need.

Shells run them; SLURM's commands, `python` and `torchrun` are stand-ins that write down how they
were called. What they write is checked by the parsers of the programs themselves.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from absl import flags

from optimization.training import binary

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "experiments/cluster"
HOSTS = ["node7", "node9"]

RECORDER = f"""#!{sys.executable}
import json, os, sys
if sys.argv[1] == "-c":
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
found = {{"program": os.path.basename(sys.argv[0]), "argv": sys.argv[1:]}}
found["TF_CONFIG"] = os.environ.get("TF_CONFIG")
with open(os.environ["RECORD"], "a") as file:
    print(json.dumps(found), file=file)
"""
SRUN = """#!/bin/bash
[ "$1" = --kill-on-bad-exit=1 ] || exit 1
for rank in 0 1; do SLURM_PROCID=$rank "${@:2}" || exit; done
"""
SCONTROL = """#!/bin/bash
[ "$*" = "show hostnames node[7,9]" ] && printf 'node7\\nnode9\\n'
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Returns a function that runs a command and returns how the programs were called."""
    programs = {"python": RECORDER, "torchrun": RECORDER, "srun": SRUN, "scontrol": SCONTROL}
    for name, text in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    record = tmp_path / "record"

    def run(command, **env):
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        env = {**os.environ, **env, "PATH": path, "RECORD": str(record)}
        subprocess.run(command, cwd=ROOT, env=env, check=True)
        found = [json.loads(line) for line in record.read_text().splitlines()]
        record.unlink()
        return found

    return run


def slurm(calls, name, **env):
    job = {"SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "node[7,9]", "SLURM_NNODES": "2"}
    return calls(["bash", str(CLUSTER / name)], **job, **env)


def settings_of_slurm(name):
    lines = (CLUSTER / name).read_text().splitlines()
    return {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}


def kubernetes(name):
    """Returns the runtime and the job."""
    runtime, job = yaml.safe_load_all((CLUSTER / name).read_text())
    assert (runtime["kind"], job["kind"]) == ("TrainingRuntime", "TrainJob")
    return runtime, job


def pod_of(runtime):
    """Returns the job of a runtime, in which the trainer runs, and its pods."""
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    labels = replicated["template"]["metadata"]["labels"]
    assert labels == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    assert replicated["name"] == "node"
    job = replicated["template"]["spec"]
    return job, job["template"]["spec"]


def pods(calls, name, **env):
    """Runs the command of a job as each of its pods does."""
    _, job = kubernetes(name)
    trainer = job["spec"]["trainer"]
    clone = "/optimizer-factory"
    command = [*trainer["command"], *(a.replace(clone, str(ROOT)) for a in trainer["args"])]
    own = {variable["name"]: variable["value"] for variable in trainer.get("env", [])}
    return [
        called
        for index in range(trainer["numNodes"])
        for called in calls(command, JOB_COMPLETION_INDEX=str(index), **own, **env)
    ]


@pytest.fixture
def parsed():
    """Returns a function that reads a command line as the trainer does."""
    binary.define_flags()

    def read(called):
        program, *arguments = called["argv"]
        assert (ROOT / program).samefile(ROOT / "experiments/train.py")
        rest = flags.FLAGS([program, *arguments])
        assert rest == [program]
        return flags.FLAGS, binary._settings(flags.FLAGS, flags.FLAGS.model_dir)

    yield read
    flags.FLAGS.unparse_flags()
    for name in ("experiment", "config_file", "params_override", "mode", "model_dir"):
        flags.FLAGS[name].unparse()


def check_trainer(found, workers, model_dir, parsed):
    import experiments.digits  # noqa: F401  registers the experiment

    assert len(found) == len(workers) == 2
    for index, called in enumerate(found):
        assert json.loads(called["TF_CONFIG"]) == {
            "cluster": {"worker": workers},
            "task": {"type": "worker", "index": index},
        }
        values, config = parsed(called)
        assert values.model_dir == model_dir
        assert config.runtime.distribution_strategy == "multi_worker_mirrored"
        assert config.problems_in_mode(values.mode) == []
        assert config.task.train_data.global_batch_size % len(workers) == 0


def check_torch(called, model_dir):
    """Checks the command line by torchrun's parser, and by that of the program."""
    run = pytest.importorskip("torch.distributed.run")
    from experiments import digits_torch

    options = run.parse_args(called["argv"])
    assert Path(options.training_script).samefile(ROOT / "experiments/digits_torch.py")
    arguments = digits_torch.parser().parse_args(options.training_script_args)
    assert arguments.model_dir == model_dir
    assert Path(arguments.config_file).is_file()
    return options


@pytest.mark.parametrize("name", ["tensorflow.sbatch", "torch.sbatch"])
def test_slurm_starts_one_task_on_each_node_and_anew_after_a_failure(name):
    found = settings_of_slurm(name)
    assert {"--nodes=2", "--ntasks-per-node=1", "--requeue", "--open-mode=append"} <= found


def test_slurm_starts_the_trainer(calls, parsed):
    found = slurm(calls, "tensorflow.sbatch", MODEL_DIR="/shared/run")
    workers = [f"{host}:{20000 + 123456 % 20000}" for host in HOSTS]
    check_trainer(found, workers, "/shared/run", parsed)


def test_slurm_starts_torchrun(calls):
    found = slurm(calls, "torch.sbatch", MODEL_DIR="/shared/run")
    assert [called["program"] for called in found] == ["torchrun", "torchrun"]
    for called in found:
        options = check_torch(called, "/shared/run")
        assert (options.nnodes, options.nproc_per_node, options.max_restarts) == ("2", "2", 3)
        assert options.rdzv_backend == "c10d"
        assert options.rdzv_endpoint == f"node7:{20000 + 123456 % 20000}"
        assert options.rdzv_id == "123456"


@pytest.mark.parametrize("name", ["tensorflow.yaml", "torch.yaml"])
def test_kubernetes_starts_all_pods_anew_after_a_failure(name):
    runtime, job = kubernetes(name)
    assert job["spec"]["runtimeRef"] == {
        "kind": "TrainingRuntime",
        "name": runtime["metadata"]["name"],
    }
    assert runtime["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"] > 0
    job_of_pods, pod = pod_of(runtime)
    assert job_of_pods["backoffLimit"] == 0
    assert pod["restartPolicy"] == "Never"


@pytest.mark.parametrize("name", ["tensorflow.yaml", "torch.yaml"])
def test_pods_share_the_directory_of_the_run(name):
    runtime, job = kubernetes(name)
    _, pod = pod_of(runtime)
    (volume,) = pod["volumes"]
    (container,) = pod["containers"]
    assert container["name"] == "node"
    (mount,) = container["volumeMounts"]
    assert mount["name"] == volume["name"]
    assert "persistentVolumeClaim" in volume
    assert f"--model_dir={mount['mountPath']}/" in job["spec"]["trainer"]["args"][-1]


def test_kubernetes_starts_the_trainer(calls, parsed):
    runtime, job = kubernetes("tensorflow.yaml")
    name = job["metadata"]["name"]
    job_of_pods, pod = pod_of(runtime)
    assert job_of_pods["completionMode"] == "Indexed"
    assert runtime["spec"]["template"]["spec"]["network"] == {"enableDNSHostnames": True}
    (port,) = (each["containerPort"] for each in pod["containers"][0]["ports"])
    nodes = job["spec"]["trainer"]["numNodes"]
    assert runtime["spec"]["mlPolicy"] == {"numNodes": nodes}
    # As JobSet names pods.
    workers = [f"{name}-node-0-{index}.{name}:{port}" for index in range(nodes)]
    check_trainer(pods(calls, "tensorflow.yaml"), workers, "/runs/digits", parsed)


def test_kubernetes_starts_torchrun(calls, monkeypatch):
    runtime, job = kubernetes("torch.yaml")
    assert runtime["spec"]["mlPolicy"] == {"numNodes": 2, "torch": {}}
    assert job["spec"]["trainer"]["numProcPerNode"] == 2
    found = pods(calls, "torch.yaml")
    # What Kubeflow sets; torchrun reads it where it is given no flags.
    monkeypatch.setenv("PET_NNODES", "2")
    monkeypatch.setenv("PET_NPROC_PER_NODE", "2")
    monkeypatch.setenv("PET_MASTER_ADDR", "digits-torch-node-0-0.digits-torch")
    for called in found:
        options = check_torch(called, "/runs/digits-torch")
        assert (options.nnodes, options.nproc_per_node) == ("2", "2")
        assert options.master_addr == "digits-torch-node-0-0.digits-torch"


@pytest.mark.parametrize("name", ["tensorflow.yaml", "torch.yaml"])
def test_every_key_is_one_of_kubeflows(name):
    models = pytest.importorskip("kubeflow_trainer_api.models")
    runtime, job = kubernetes(name)
    for given, kind in (
        (runtime, models.TrainerV1alpha1TrainingRuntime),
        (job, models.TrainerV1alpha1TrainJob),
    ):
        assert kind.from_dict(given).to_dict() == given
