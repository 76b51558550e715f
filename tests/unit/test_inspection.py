"""What a pilot finds out about its node before it claims anything."""

import os
from pathlib import Path

import pytest

from hpc_cluster import inspection


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder that is the whole PATH; returns a function that puts a program into it."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def add(name, text):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o700)

    return add


def no_devices():
    if any(inspection.DEVICES.fullmatch(name) for name in os.listdir("/dev")):
        pytest.skip("this machine has a GPU")


def test_a_node_without_any_sign_of_a_gpu_is_bad(programs):
    no_devices()
    assert "no GPU is to be seen on" in inspection.gpu_problem({})
    assert inspection.gpu_problem({"CUDA_VISIBLE_DEVICES": "NoDevFiles"})


def test_the_batch_systems_word_for_a_gpu_counts_where_nothing_else_tells(programs):
    no_devices()
    assert inspection.gpu_problem({"CUDA_VISIBLE_DEVICES": "0"}) is None
    assert inspection.gpu_problem({"SLURM_JOB_GPUS": "1,3"}) is None


def test_a_driver_that_is_down_is_told_in_its_own_words(programs):
    programs("nvidia-smi", "echo NVIDIA-SMI has failed: no driver; exit 9")
    problem = inspection.gpu_problem({"CUDA_VISIBLE_DEVICES": "0"})
    assert problem is not None and problem.endswith("NVIDIA-SMI has failed: no driver")


def test_a_gpu_that_nvidia_smi_lists_is_there(programs):
    programs("nvidia-smi", "echo 'GPU 0: Tesla V100 (UUID: GPU-1)'")
    assert inspection.gpu_problem({}) is None


def test_a_gpu_with_too_little_memory_is_told(programs):
    programs("nvidia-smi", "echo 16160")
    assert inspection.gpu_memory_problem(16) is None
    problem = inspection.gpu_memory_problem(32)
    assert problem is not None and "16160 MiB" in problem and "32 GB" in problem


def test_either_container_program_will_do(programs):
    warning = inspection.container_warning()
    assert warning is not None and warning.startswith("neither singularity nor apptainer")
    programs("apptainer", "true")
    assert inspection.container_warning() is None


@pytest.mark.parametrize(
    "body",
    [
        "singularity run x.sif",
        "set -e\n  apptainer exec x.sif true",
        "cd /tmp && singularity run x.sif",
        "x=$(singularity --version)",
        "exec singularity run x.sif",
    ],
)
def test_a_script_that_calls_a_container_program_needs_one(body):
    assert inspection.wants_container_program(f"#!/bin/bash\n{body}\n".encode())


@pytest.mark.parametrize(
    "body",
    [
        "echo hello",
        "# singularity run x.sif",
        "echo no singularity here",
        "/opt/apptainer/bin/apptainer run x.sif",
        "module load apptainer\napptainer run x.sif",
        "export PATH=/opt/bin:$PATH\nsingularity run x.sif",
        ". /etc/profile.d/sif.sh\nsingularity run x.sif",
        "if command -v singularity; then\nsingularity run x.sif\nfi",
    ],
)
def test_a_script_that_brings_its_own_or_calls_none_needs_none(body):
    assert not inspection.wants_container_program(f"#!/bin/bash\n{body}\n".encode())


def test_the_shipped_container_templates_are_recognised(checkout: Path):
    text = (checkout / "templates" / "my_container.template").read_bytes()
    assert inspection.wants_container_program(text)
    text = (checkout / "templates" / "self_test.template").read_bytes()
    assert not inspection.wants_container_program(text)
