"""The variables of a launcher: whole, or refused."""

import pytest

from toolkit.config import sources
from toolkit.config.settings import EvaluationSettings
from toolkit.system import world
from toolkit.system.console import InputError


@pytest.mark.parametrize(
    ("variables", "wrong"),
    [
        ("", False), ("RANK=0 WORLD_SIZE=1", False), ("RANK=1 WORLD_SIZE=2 LOCAL_RANK=1", False), ("RANK=0", False),
        ("WORLD_SIZE=1", False), ("LOCAL_RANK=0", False), ("RANK=1 WORLD_SIZE=1", True), ("RANK=0 WORLD_SIZE=0", True),
        ("RANK=1", True), ("WORLD_SIZE=4", True), ("LOCAL_RANK=1", True), ("RANK=x WORLD_SIZE=2", True),
        ("RANK=0 WORLD_SIZE=2 LOCAL_RANK=-1", True), ("RANK=\u00b2 WORLD_SIZE=3", True),
    ],
)  # fmt: skip
def test_a_half_of_a_job_is_refused(variables, wrong, monkeypatch):
    """With RANK=1 WORLD_SIZE=1 a script wrote nothing, and still ended with status 0."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (pair.split("=") for pair in variables.split()):
        monkeypatch.setenv(name, value)
    assert bool(world.problem()) == wrong
    if wrong:
        with pytest.raises(InputError, match="expected RANK from 0 to WORLD_SIZE - 1"):
            sources.read(EvaluationSettings, [])


@pytest.mark.parametrize(
    ("variables", "odd"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True), ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"PMI_SIZE": "4", "RANK": "0", "WORLD_SIZE": "4"}, False), ({}, False),
    ],
)  # fmt: skip
def test_a_process_beside_others_that_does_not_know_them_says_so(variables, odd, monkeypatch):
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert bool(world.warning()) == odd
