"""Which photographs each epoch and each batch takes: functions of (seed, epoch), so that resuming is arithmetic."""

import math

import numpy as np
import pandas as pd

from toolkit.data.augment import ORDER_STREAM
from toolkit.system import distributed, world


def epoch_order(
    photographs: np.ndarray, seed: int, epoch: int, sampling_weights: np.ndarray | None = None
) -> np.ndarray:
    """The photographs of an epoch in their order: shape (n,), as `photographs`.

    A permutation or, with `sampling_weights` (shape (n,), their sum is 1), a sample with replacement.
    """
    rng = np.random.default_rng([seed, epoch, ORDER_STREAM])
    if sampling_weights is None:
        return rng.permutation(photographs)
    return rng.choice(photographs, len(photographs), p=sampling_weights)


def balanced_sampling_weights(labels: np.ndarray, people: pd.Series) -> np.ndarray:
    """Weights with which every class is drawn equally often: float64, shape (n,), from labels and people, shape (n,).

    Within a class every person is drawn equally often, and so is every photograph of a person in that class.
    """
    table = pd.DataFrame({"label": labels, "person": pd.factorize(people)[0]})
    people_of_class = table.groupby("label")["person"].transform("nunique")
    photographs_of_person = table.groupby(["label", "person"])["person"].transform("size")
    return (1 / (table["label"].nunique() * people_of_class * photographs_of_person)).to_numpy()


def split_into_microbatches(batch: np.ndarray, micro_batch_size: int | None) -> list[np.ndarray]:
    """This process's shard of a batch in equal microbatches of at most `micro_batch_size`; None: in one.

    Every process makes the same number of them, since DistributedDataParallel waits for the others in each. Each has
    two photographs at least, as batch norm cannot learn from one.
    """
    smallest, largest = len(batch) // world.size(), math.ceil(len(batch) / world.size())
    count = min(math.ceil(largest / (micro_batch_size or largest)), smallest // 2)
    return np.array_split(distributed.shard(batch), max(count, 1))
