"""A learning-rate finder: train while the rate rises, and see where the loss falls (Smith, 2017, the LR range test)."""

import dataclasses
import math

import torch

from toolkit.config.settings import TrainSettings
from toolkit.runs.checkpoint import State
from toolkit.system.console import InputError
from toolkit.training import step
from toolkit.training.loop import make_recipe
from toolkit.training.optimizer import Learner
from toolkit.training.task import Data

STEPS, LOWEST, HIGHEST = 120, 1e-6, 1.0
SMOOTH = 0.9  # of the moving average over the steps' losses
DIVERGED = 2.0  # times the least loss
ROWS, WIDTH = 24, 50  # of the drawn curve


class _Enough(Exception):  # noqa: N818 (no error)
    pass


def sweep(config: TrainSettings, learner: Learner, criterion, data: Data) -> list[tuple[float, float]]:
    """(learning rate, smoothed loss) of each step, until the loss has grown to DIVERGED times its least, or STEPS."""

    def rate(step: int) -> float:
        return LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))

    recipe = dataclasses.replace(make_recipe(config, criterion, data, STEPS, State({}, "")), learning_rate=rate)
    points, average = [], 0.0

    def after_step(losses: torch.Tensor) -> None:
        nonlocal average
        if not losses[-1].isfinite():
            raise _Enough
        average = SMOOTH * average + (1 - SMOOTH) * losses[-1].item()
        points.append((rate(len(points)), average / (1 - SMOOTH ** (len(points) + 1))))
        if len(points) == STEPS or points[-1][1] > DIVERGED * min(loss for _, loss in points):
            raise _Enough

    try:
        for epoch in range(STEPS):
            step.train_one_epoch(
                learner.net, learner.optimizer, recipe, data.faces, data.train, epoch, after_step=after_step
            )
    except (_Enough, InputError):  # the latter where the gradient is no number any more
        pass
    if not points:
        raise InputError(
            "FIND_LR=true: expected a finite loss at the lowest learning rate, found none; set PRECISION=fp32"
        )
    return points


def suggestion(points: list[tuple[float, float]]) -> float:
    """A tenth of the rate at which the loss is least: beyond it training hardly gains, and soon breaks."""
    return min(points, key=lambda point: point[1])[0] / 10


def report(points: list[tuple[float, float]]) -> str:
    """The curve, drawn in lines, and the suggestion."""
    low, high = (pick(loss for _, loss in points) for pick in (min, max))
    lines = [f"{'lr':>8}  {'loss':>8}"]
    for rate, loss in points[:: math.ceil(len(points) / ROWS)]:
        lines.append(f"{rate:8.1e}  {loss:8.4f}  {'*':>{1 + round(WIDTH * (loss - low) / max(high - low, 1e-12))}}")
    return "\n".join([*lines, f"suggestion, a tenth of the rate of the least loss: LR={suggestion(points):.1e}"])
