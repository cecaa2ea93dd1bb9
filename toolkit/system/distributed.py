"""The processes of one job, on one machine or several: started by torchrun, joined by torch.distributed.

In a single process the functions here do nothing, or return what they were given.
"""

import contextlib
import datetime
import functools
import inspect
import itertools
import json
import os
import pathlib
import shutil
import tempfile

from toolkit.system import world
from toolkit.system.console import InputError, first_line, say

LONGEST_WAIT = datetime.timedelta(minutes=30)  # for other processes, which may be decoding; NCCL's default is 10
_groups = itertools.count()  # numbers the process groups that this process joins, one after another


def is_idle_host() -> bool:
    """Whether SageMaker started this script on several hosts without torchrun, and this is not the first; prints it."""
    try:
        hosts = json.loads(os.environ.get("SM_HOSTS") or "[]")
    except ValueError:
        return False
    here = os.environ.get("SM_CURRENT_HOST")
    if world.size() > 1 or not isinstance(hosts, list) or here not in hosts or here == min(hosts):
        return False
    say(f"nothing to do on {here}: {min(hosts)} does all; start the job with torchrun to use {len(hosts)} machines")
    return True


@functools.cache  # kept: else a process that joins again might reach the store that rank 0 is about to close
def _rendezvous() -> tuple:
    from torch import distributed

    return next(distributed.rendezvous("env://"))


@contextlib.contextmanager
def joined(device: str):
    """The process group, until the block ends: NCCL with CUDA, else gloo.

    Raises InputError where a process has no GPU, torchrun's variables are incomplete, or another process has ended.
    """
    if world.size() == 1:
        yield
        return
    import torch
    from torch import distributed

    cuda = torch.cuda.is_available() and device in ("auto", "cuda")
    if cuda and not os.environ.get("LOCAL_RANK") and torch.cuda.device_count() > 1:  # as Slurm and MPI start processes
        raise InputError(
            f"RANK and WORLD_SIZE are set, LOCAL_RANK is not: expected in it the number of this process's GPU "
            f"among {torch.cuda.device_count()}; use torchrun, or show each process only its own (CUDA_VISIBLE_DEVICES)"
        )
    if cuda and world.local_rank() >= torch.cuda.device_count():
        raise InputError(f"expected a GPU for each process, found {torch.cuda.device_count()}; lower --nproc-per-node")
    if cuda:
        torch.cuda.set_device(world.local_rank())
    if distributed.is_initialized():  # an earlier call in this process ended with an error
        distributed.destroy_process_group()
    try:
        store, number, size = _rendezvous()
        if os.environ.get("GROUP_WORLD_SIZE") == "1":  # torchrun's default store keeps its keys over a restart
            store = distributed.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", ""), store)
        store = distributed.PrefixStore(f"group {next(_groups)}", store)  # it also keeps them from one main to the next
        distributed.init_process_group(
            "nccl" if cuda else "gloo", store=store, rank=number, world_size=size, timeout=LONGEST_WAIT
        )
        yield
    except ValueError as error:
        if "env://" in str(error):
            raise InputError(f"RANK and WORLD_SIZE are set, but not all that torchrun sets: {error}") from None
        raise
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error).lower():
            reason = first_line(error)
            raise InputError(
                f"another process of this job has ended, or cannot be reached; the last saved state is kept: "
                f"start the same command to continue, or let torchrun do so with --max-restarts ({reason})"
            ) from None
        raise
    distributed.destroy_process_group()


def data_parallel(model):
    """`model` in DistributedDataParallel, with the same weights. A single process gets `model` itself."""
    if world.size() == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel

    # Batch norm uses each process's own photographs; recompute_batch_norm_statistics averages them at the end.
    parameters = inspect.signature(DistributedDataParallel).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"  # its older name
    return DistributedDataParallel(model, **{sync: False})


def shard(items):
    """This process's part of a sequence: items[rank::size]."""
    return items[world.rank() :: world.size()]


def all_gather_rows(rows, length: int):
    """All rows of a tensor, in order, from the `shard` of each process: shape (length, k), the same everywhere.

    Exactly `length` rows: nothing is padded, nothing counts twice. Gradients reach this process's own rows only.
    """
    if world.size() == 1:
        return rows
    import torch

    index = torch.arange(world.rank(), length, world.size(), device=rows.device)
    zeros = rows.new_zeros(length, *rows.shape[1:])
    return all_reduce(zeros.index_copy(0, index, rows.detach())).index_copy(0, index, rows)


def all_reduce(tensor):
    """The sum of a tensor over all processes, in place."""
    if world.size() > 1:
        from torch import distributed

        summed = tensor.cuda() if distributed.get_backend() == "nccl" else tensor
        distributed.all_reduce(summed)
        tensor.copy_(summed)
    return tensor


def broadcast(thing):
    """The object of rank 0: plain types and tensors."""
    if world.size() == 1:
        return thing
    from torch import distributed

    box = [thing]
    distributed.broadcast_object_list(box)
    return box[0]


def all_gather_object(thing) -> list:
    """The objects of all processes, by rank."""
    if world.size() == 1:
        return [thing]
    from torch import distributed

    things = [None] * world.size()
    distributed.all_gather_object(things, thing)
    return things


def all_gather_by_row(own: dict) -> dict:
    """{row: value} of all processes, by row of the whole; the keys of `own` are rows of this process's `shard`."""
    gathered = {
        row * world.size() + rank: value
        for rank, values in enumerate(all_gather_object(own))
        for row, value in values.items()
    }
    return dict(sorted(gathered.items()))


@contextlib.contextmanager
def shared_folder():
    """A temporary folder for the processes of one machine, until the block ends; None for a single process."""
    if world.size() == 1:
        yield None
        return
    several = int(os.environ.get("LOCAL_WORLD_SIZE") or 1) > 1
    machine, made = os.environ.get("GROUP_RANK"), tempfile.mkdtemp() if world.local_rank() == 0 else None
    gathered = all_gather_object((machine, made))
    folder = next(pathlib.Path(folder) for where, folder in gathered if where == machine and folder)
    try:
        yield folder if several else None
        all_gather_object(None)  # a barrier: no process deletes what another still reads
    finally:
        shutil.rmtree(folder, ignore_errors=True)
