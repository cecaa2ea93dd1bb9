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


def _rank_and_size() -> tuple[int, int]:
    # Both, or neither: SageMaker sets MASTER_ADDR on a single host too, which means nothing.
    number, count = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    return (int(number), int(count)) if number.isdigit() and count.isdigit() else (0, 1)
