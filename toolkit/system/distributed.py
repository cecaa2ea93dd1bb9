"""Several processes that work on one job, on one machine or many: started by torchrun, joined by torch.distributed.

Only RANK and WORLD_SIZE, which torchrun sets, mean that there are several. Alone, every function here does nothing, or
gives back what it was given.
"""

import contextlib
import inspect
import json
import os
import pathlib
import shutil
import tempfile

from toolkit.system.console import InputError, place, rank, say


def count() -> int:
    """How many processes this job has."""
    return place()[1]


def local_rank() -> int:
    """The number of this process among those on this machine, from 0."""
    return int(os.environ.get("LOCAL_RANK") or 0) if count() > 1 else 0


def idle_host() -> bool:
    """Whether SageMaker gave this job several machines, nothing joins them, and this is not the first. Says so."""
    try:
        hosts = json.loads(os.environ.get("SM_HOSTS") or "[]")
    except ValueError:
        return False
    here = os.environ.get("SM_CURRENT_HOST")
    if count() > 1 or not isinstance(hosts, list) or here not in hosts or here == min(hosts):
        return False
    say(f"nothing to do on {here}: {min(hosts)} does all; start the job with torchrun to use {len(hosts)} machines")
    return True


@contextlib.contextmanager
def joined(device: str):
    """The processes know each other until the block ends; over NCCL with CUDA, else over gloo."""
    if count() == 1:
        yield
        return
    import torch
    from torch import distributed

    cuda = torch.cuda.is_available() and device in ("auto", "cuda")
    if cuda and local_rank() >= torch.cuda.device_count():
        raise InputError(f"expected a GPU for each process, found {torch.cuda.device_count()}; lower --nproc-per-node")
    if cuda:
        torch.cuda.set_device(local_rank())
    try:
        store, number, size = next(distributed.rendezvous("env://"))
        if os.environ.get("GROUP_WORLD_SIZE") == "1":  # torchrun's default store still holds what was before a restart
            store = distributed.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", ""), store)
        distributed.init_process_group("nccl" if cuda else "gloo", store=store, rank=number, world_size=size)
        yield
    except ValueError as error:
        if "env://" in str(error):
            raise InputError(f"RANK and WORLD_SIZE are set, but not all that torchrun sets: {error}") from None
        raise
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error).lower():
            reason = str(error).strip().split("\n")[0]
            raise InputError(
                f"another process of this job has ended, or cannot be reached; what was saved stands: the same "
                f"command goes on from there, as does torchrun by itself with --max-restarts ({reason})"
            ) from None
        raise
    distributed.destroy_process_group()


def parallel(net):
    """The net for training: after every step its weights are the same in all processes. They are shared with `net`."""
    if count() == 1:
        return net
    from torch.nn.parallel import DistributedDataParallel

    # Statistics of batch norm are those of each process's photographs, until they are settled over all of them.
    words = inspect.signature(DistributedDataParallel).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in words else "broadcast_buffers"  # its older name
    return DistributedDataParallel(net, **{sync: False})


def own(items):
    """This process's part of a sequence: every count()-th."""
    return items[rank() :: count()]


def whole(parts, length: int):
    """A tensor of `length` rows of which each process has its `own`: shape (length, k), the same in all of them.

    Nothing is padded, and nothing counts twice. Gradients go to its own rows alone.
    """
    if count() == 1:
        return parts
    import torch

    rows = torch.arange(rank(), length, count(), device=parts.device)
    zeros = parts.new_zeros(length, *parts.shape[1:])
    return total(zeros.index_copy(0, rows, parts.detach())).index_copy(0, rows, parts)


def total(tensor):
    """The sum over all processes of a tensor, which lies where it did. In place."""
    if count() > 1:
        from torch import distributed

        there = tensor.cuda() if distributed.get_backend() == "nccl" else tensor
        distributed.all_reduce(there)
        tensor.copy_(there)
    return tensor


def from_first(thing):
    """What the first process has, of plain types and tensors."""
    if count() == 1:
        return thing
    from torch import distributed

    box = [thing]
    distributed.broadcast_object_list(box)
    return box[0]


def of_all(thing) -> list:
    """What every process has, by rank."""
    if count() == 1:
        return [thing]
    from torch import distributed

    things = [None] * count()
    distributed.all_gather_object(things, thing)
    return things


def rows_of_all(own: dict) -> dict:
    """{row: what} of all processes, in order, from what each has of its `own` rows."""
    together = {row * count() + first: what for first, some in enumerate(of_all(own)) for row, what in some.items()}
    return dict(sorted(together.items()))


@contextlib.contextmanager
def shared_folder():
    """A temporary folder that the processes of one machine share until the block ends; None where there is one."""
    if count() == 1:
        yield None
        return
    several = int(os.environ.get("LOCAL_WORLD_SIZE") or 1) > 1
    machine, made = os.environ.get("GROUP_RANK"), tempfile.mkdtemp() if local_rank() == 0 else None
    folder = next(pathlib.Path(folder) for where, folder in of_all((machine, made)) if where == machine and folder)
    try:
        yield folder if several else None
        of_all(None)  # until all are done with it
    finally:
        shutil.rmtree(folder, ignore_errors=True)
