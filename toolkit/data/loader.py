"""From the store of pixels to the model's input, batch by batch on the device."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from toolkit.data import augment
from toolkit.data.store import Store
from toolkit.system.device import Machine

COPIED_AT_ONCE = 1024  # photographs
PLANNED_AT_ONCE = 4096  # photographs whose augmentation is computed together


def split_into_batches(photographs: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """As few batches of at most `batch_size` as possible; their sizes differ by at most one photograph.

    No batch has one photograph, from which batch norm cannot learn: with `batch_size` 2 and an odd number, one batch
    has 3.
    """
    count = min(math.ceil(len(photographs) / batch_size), len(photographs) // 2)
    return np.array_split(photographs, max(count, 1))


class Loader:
    """The photographs of a store as inputs of a model on a machine, by their indices in the store."""

    def __init__(self, store: Store, machine: Machine, mean: Sequence[float], std: Sequence[float]):
        self.store, self.machine = store, machine
        self.mean, self.std = torch.tensor([mean, std], device=machine.device)
        self.resident: torch.Tensor | None = None  # all pixels, on the GPU

    def move_to_gpu(self) -> None:
        """Keep all pixels on a GPU if they take less than half of its free memory. Waits for the store."""
        if self.machine.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.machine.device)
            if self.store.bytes < free / 2:
                self.resident = torch.empty(self.store.shape, dtype=torch.uint8, device=self.machine.device)
                for index in torch.arange(len(self.store)).split(COPIED_AT_ONCE):
                    self.resident[index[0] : index[-1] + 1] = self.store.gather(index)

    def load(
        self,
        batches: Sequence[np.ndarray],
        policy: augment.Policy | None = None,
        draws: torch.Tensor | None = None,
    ) -> Iterator[torch.Tensor]:
        """The model's input for each batch of indices: float32, shape (b, 3, height, width), on the device.

        With a policy, photographs are augmented by `draws`, shape (n, len(augment.DRAWS)): a row for each photograph of
        all batches together.
        """
        # Indices and draws of all batches go to the device in one copy each, so that no step waits for one.
        indices = torch.from_numpy(np.concatenate(batches)).to(self.machine.device)
        plans = self._plans([len(batch) for batch in batches], policy, draws)
        for pixels, plan in zip(self._pixels(batches, indices), plans, strict=True):
            yield augment.apply(pixels, *plan)

    def _plans(
        self, lengths: list[int], policy: augment.Policy | None, draws: torch.Tensor | None
    ) -> Iterator[Sequence[torch.Tensor]]:
        """The plan of each batch, computed for several batches at once. `lengths`: photographs in each batch."""
        if policy is None or policy == augment.Policy():
            yield from [augment.plan(self.store.size, self.mean, self.std)] * len(lengths)
            return
        draws, count = draws.to(self.machine.device).split(lengths), max(PLANNED_AT_ONCE // max(lengths), 1)
        for first in range(0, len(lengths), count):
            some = torch.cat(draws[first : first + count])
            made = augment.plan(self.store.size, self.mean, self.std, policy, some)
            yield from zip(*(each.split(lengths[first : first + count]) for each in made), strict=True)

    def _pixels(self, batches: Sequence[np.ndarray], indices: torch.Tensor) -> Iterator[torch.Tensor]:
        """The pixels of each batch: uint8, shape (b, height, width, 3), on the device."""
        if self.resident is not None:
            for index in indices.split([len(batch) for batch in batches]):
                yield self.resident.index_select(0, index)
        elif self.machine.device.type == "cpu":
            for batch in batches:
                yield self.store.gather(torch.from_numpy(batch))
        else:
            # One thread is enough to gather the next batch while the device works on this one.
            with ThreadPoolExecutor(1) as pool:
                ahead = pool.submit(self._gather_for_copy, batches[0])
                for following in [*batches[1:], None]:
                    pixels = ahead.result()
                    if following is not None:
                        ahead = pool.submit(self._gather_for_copy, following)
                    # Asynchronous only from pinned memory: from other memory, MPS might still read after it was freed.
                    yield pixels.to(self.machine.device, non_blocking=pixels.is_pinned())

    def _gather_for_copy(self, batch: np.ndarray) -> torch.Tensor:
        pixels = self.store.gather(torch.from_numpy(batch))
        return pixels.pin_memory() if self.machine.device.type == "cuda" else pixels
