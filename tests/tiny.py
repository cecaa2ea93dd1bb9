"""train.py with a net of a single convolution, without batch norm and dropout, and losses that are written down.

Every step's loss goes to the file LOSSES. In its first life the process DYING_RANK sends itself DYING_SIGNAL, or
SIGKILL, at the step DYING_STEP.
"""

import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from torch import nn

import loss
import model
import train
from toolkit.system import console, world
from toolkit.system.console import InputError

steps = []


def net(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, classes)
    )


def noted(of_batch):
    def criterion(logits, labels, **options):
        value = of_batch(logits, labels, **options)
        if value.requires_grad:  # a step, no validation
            steps.append(value.item())
            if world.rank() == 0:
                with open(os.environ["LOSSES"], "a") as file:
                    file.write(f"{value.item()!r}\n")
            first_life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
            dying = (str(world.rank()), str(len(steps)))
            if first_life and dying == (os.environ.get("DYING_RANK"), os.environ.get("DYING_STEP")):
                os.kill(os.getpid(), int(os.environ.get("DYING_SIGNAL", signal.SIGKILL)))
        return value

    return criterion


def main(argv: list[str]) -> None:
    """Of a process of its own: it changes what train.py knows."""
    model.OWN["tiny"] = net
    loss.LOSSES |= {name: noted(of_batch) for name, of_batch in loss.LOSSES.items()}
    loss.refuse_unfit = lambda *_: None  # its calls would be noted as steps
    try:
        train.main(argv)
    except InputError:
        time.sleep(0.5)  # so that torchrun sees the process that died first, not the one that lost it
        raise


if __name__ == "__main__":
    console.run(main)
