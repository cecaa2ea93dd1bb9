"""train.py with a net of a single convolution, without batch norm and dropout, and a loss that is written down.

Every step's loss goes to the file LOSSES. In its first life the process DYING_RANK kills itself at the step DYING_STEP.
"""

import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from torch import nn

import loss
import model
from toolkit import console

model.OWN["tiny"] = lambda classes: nn.Sequential(
    nn.Conv2d(3, 8, 5, stride=3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, classes)
)
steps = []


def noted(of_batch):
    def criterion(logits, labels, weight=None, **options):
        value = of_batch(logits, labels, weight, **options)
        if value.requires_grad:  # a step, no validation
            steps.append(value.item())
            if console.rank() == 0:
                with open(os.environ["LOSSES"], "a") as file:
                    file.write(f"{value.item()!r}\n")
            first_life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
            dying = (str(console.rank()), str(len(steps)))
            if first_life and dying == (os.environ.get("DYING_RANK"), os.environ.get("DYING_STEP")):
                os.kill(os.getpid(), signal.SIGKILL)
        return value

    return criterion


loss.LOSSES |= {name: noted(of_batch) for name, of_batch in loss.LOSSES.items()}

import train  # noqa: E402 (it reads the names of nets and losses)

console.run(train.main)
