"""Which process of the job this one is, as torchrun says in RANK, WORLD_SIZE and LOCAL_RANK."""

import os


def rank() -> int:
    """The number of this process in its job, from 0; 0 where there is no other."""
    return _rank_and_size()[0]


def size() -> int:
    """The number of processes in this job."""
    return _rank_and_size()[1]


def local_rank() -> int:
    """The number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK") or 0) if size() > 1 else 0


def problem() -> str:
    """What is wrong with the variables, in one line; empty if nothing is wrong.

    With only half of the variables, each process would silently do the whole work beside the others.
    """
    given = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") if os.environ.get(name)}
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    both = "RANK" in given and "WORLD_SIZE" in given
    numbers = all(value.isdecimal() for value in given.values())
    if numbers and (rank() < size() if both else given.items() <= alone.items()):
        return ""
    found = ", ".join(f"{name}={value}" for name, value in given.items())
    return (
        f"{found}: expected RANK from 0 to WORLD_SIZE - 1 and WORLD_SIZE, as torchrun sets them, found something else; "
        "unset them, or start with torchrun"
    )


def warning() -> str:
    """A warning if mpirun or srun started this process with others but without RANK, in one line; else empty."""
    counts = ((name, os.environ.get(name, "")) for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"))
    several = [f"{name}={count}" for name, count in counts if count.isdecimal() and int(count) > 1]
    if not several or os.environ.get("RANK"):
        return ""
    return f"{several[0]}, but no RANK: each of these processes does the whole work by itself; torchrun joins them"


def _rank_and_size() -> tuple[int, int]:
    # By RANK and WORLD_SIZE only: SageMaker sets MASTER_ADDR on a single host too.
    number, count = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    return (int(number), int(count)) if number.isdecimal() and count.isdecimal() else (0, 1)
