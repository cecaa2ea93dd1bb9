"""A learning-rate finder: train while the rate rises, and see where the loss falls (Smith, 2017, the LR range test)."""

import dataclasses

import torch
from torch import nn

from toolkit.config.settings import TrainSettings
from toolkit.system.console import InputError, say
from toolkit.system.device import out_of_memory_advice
from toolkit.training.loop import make_recipe, make_train_state
from toolkit.training.step import train_one_epoch
from toolkit.training.task import Task

STEPS, LOWEST, HIGHEST = 120, 1e-6, 1.0
SMOOTHING = 0.9  # of the moving average over the steps' losses
DIVERGED = 2.0  # times the lowest loss
STEPS_PER_LINE, WIDTH = 5, 50  # of the printed curve: losses 0 and DIVERGED * first loss are WIDTH characters apart


def find_lr(config: TrainSettings, net: nn.Module, task: Task) -> None:
    """Try learning rates from low to high, and print the curve and which one to take. Nothing is kept."""
    with out_of_memory_advice("MICRO_BATCH_SIZE, BATCH_SIZE or SIZE"):
        rate = suggestion(sweep(config, net, task))
    say(f"suggestion, a tenth of the rate of the lowest loss: LR={rate:.1e}")


class _Enough(Exception):  # noqa: N818 (no error: it ends train_one_epoch from within)
    pass


def sweep(config: TrainSettings, net: nn.Module, task: Task) -> list[tuple[float, float]]:
    """(learning rate, smoothed loss) of each step, until STEPS, or until the loss is DIVERGED times its lowest.

    Prints the curve as it goes. Raises InputError if the loss is not finite at the lowest rate already.
    """

    def rate(step: int) -> float:
        return LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))

    state = make_train_state(config, net)
    recipe = dataclasses.replace(make_recipe(config, STEPS), learning_rate=rate)
    points, average = [], 0.0
    say(f"{'lr':>8}  {'loss':>8}")

    def after_step(losses: torch.Tensor) -> None:
        nonlocal average
        # On a GPU, a gradient that is not finite does not end the epoch; its later steps only seem to be taken.
        if not losses[-1].isfinite() or state.optimizer.found_inf:
            raise _Enough
        average = SMOOTHING * average + (1 - SMOOTHING) * losses[-1].item()
        points.append((rate(len(points)), average / (1 - SMOOTHING ** (len(points) + 1))))  # unbiased: it starts at 0
        is_last = len(points) == STEPS or points[-1][1] > DIVERGED * min(loss for _, loss in points)
        if is_last or len(points) % STEPS_PER_LINE == 1:
            say(_line(*points[-1], DIVERGED * points[0][1]))
        if is_last:
            raise _Enough

    try:
        for epoch in range(STEPS):  # an epoch has one step at least
            train_one_epoch(state.model, state.optimizer, task, recipe, epoch, after_step=after_step)
    except (_Enough, InputError):  # InputError: the gradient is not finite any more
        pass
    if not points:
        raise InputError(
            "FIND_LR=true: expected a finite loss at the lowest learning rate, found none; set PRECISION=fp32"
        )
    return points


def suggestion(points: list[tuple[float, float]]) -> float:
    """A tenth of the rate with the lowest loss: higher rates gain little, and soon diverge."""
    return min(points, key=lambda point: point[1])[0] / 10


def _line(rate: float, loss: float, highest: float) -> str:
    """A line of the curve: numbers, and a star as far to the right as the loss is high."""
    return f"{rate:8.1e}  {loss:8.4f}  {'*':>{1 + round(WIDTH * min(loss / max(highest, 1e-12), 1.0))}}"
