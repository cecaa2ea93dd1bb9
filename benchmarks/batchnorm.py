"""Why did every net with batch norm do badly in the seed's table (one epoch: vgg16 57 %, vgg16_bn 27 %)?

python benchmarks/batchnorm.py [--pairs vgg11,vgg11_bn ...] [--people 120] [--size 64x64] [--epochs 1]

One epoch of the seed's recipe (SGD at 1e-3 without momentum and decay, from scratch) on the drawn faces, and then one
suspect after the other taken away:

    running statistics   validation with those of training's moving average, and with those of the net as it is
    learning rate        the same steps at 0.01 and 0.1
    weight decay         0.05 in place of none
    our defaults         AdamW, warm-up, cosine, light augmentation, settled statistics

Printed are the training loss of the last steps (in training's mode, whose statistics are those of the batch), and the
loss and accuracy on validation people, beside those of a net that always says the commonest class.
"""

import argparse
import dataclasses
import pathlib
import sys
import tempfile
from functools import partial

import torch
from torch.nn import functional as F

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dataset  # noqa: E402
import loss  # noqa: E402
import model  # noqa: E402
import train  # noqa: E402
from toolkit import augment, device, engine, optimization, sample  # noqa: E402
from toolkit.store import Store  # noqa: E402

ROW = "{:12} {:38} {:>10} {:>10} {:>10}"
BATCH = 64


@dataclasses.dataclass(frozen=True)
class Suspect:
    """A way to train for an epoch, and to validate."""

    name: str
    lr: float = 1e-3
    weight_decay: float = 0.0
    settled: bool = False
    defaults: bool = False


SUSPECTS = (
    Suspect("the seed's recipe"),
    Suspect("running statistics settled", settled=True),
    Suspect("weight decay 0.05", weight_decay=0.05, settled=True),
    Suspect("learning rate 0.01", lr=0.01, settled=True),
    Suspect("learning rate 0.1", lr=0.1, settled=True),
    Suspect("learning rate 0.1, moving averages", lr=0.1),
    Suspect("our defaults", defaults=True, settled=True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="*", default=["vgg11,vgg11_bn", "vgg13,vgg13_bn", "vgg16,vgg16_bn"])
    parser.add_argument("--people", default=280, type=int)
    parser.add_argument("--size", default="64x64", type=lambda text: tuple(map(int, text.split("x"))))
    parser.add_argument("--epochs", default=1, type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sample.ensure(pathlib.Path(scratch, "data"), people=options.people, eval_people=6)
        folder = pathlib.Path(scratch, "data", "train")
        table, _ = dataset.read_faces(folder)
        sides = dataset.split(table, dataset.hold_out(table, 0.2, 0, 0, seed=42))
        store = Store(dataset.paths(table, folder), options.size)
        assert not store.fill()
        faces = engine.Faces(store, device.choose("auto", "fp32"), train.MEAN, train.STD, dataset.labels(table))
        labels = faces.labels[sides.validation]
        commonest = labels.bincount().max() / len(labels)
        print(f"{len(sides.train)} photographs in batches of {BATCH}, {options.epochs} epochs")
        print(f"a net that always says the commonest class has an accuracy of {commonest:.1%}")
        print(ROW.format("net", "recipe", "train loss", "val loss", "val acc"))
        for name in (name for pair in options.pairs for name in pair.split(",")):
            for suspect in SUSPECTS:
                measure(name, suspect, faces, sides, options.epochs)


def measure(name: str, suspect: Suspect, faces: engine.Faces, sides: dataset.Split, epochs: int) -> None:
    torch.manual_seed(42)
    net, _ = model.build(name, faces.store.size, pretrained=False)
    net = faces.machine.place(net)
    steps = epochs * len(engine.batches(sides.train, BATCH))
    if suspect.defaults:
        lr = 5e-4 if name in model.WITHOUT_BATCH_NORM else 1e-3
        optimizer = optimization.build("adamw", net, lr, 0.05)
        rate = partial(optimization.learning_rate, steps=steps, highest=lr, warmup=0.1, schedule="cosine")
    else:
        optimizer = torch.optim.SGD(net.parameters(), suspect.lr, weight_decay=suspect.weight_decay, fused=True)
        rate = lambda step: suspect.lr  # noqa: E731
    policy = augment.POLICIES["light" if suspect.defaults else "none"]
    recipe = engine.Recipe(loss.cross_entropy, rate, policy, BATCH, 1.0 if suspect.defaults else 0.0, 42)
    losses = []

    def note(of_epoch: torch.Tensor) -> None:
        losses.append(of_epoch[-1].item())

    for epoch in range(epochs):
        engine.train_one_epoch(net, optimizer, recipe, faces, sides.train, epoch, after_step=note)
    if suspect.settled:
        engine.settle_batch_norm(net, faces, engine.batches(sides.train, BATCH)[:16])
    logits, labels = (
        engine.predict(net, faces, sides.validation).to(faces.labels.device),
        faces.labels[sides.validation],
    )
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    last = sum(losses[-5:]) / len(losses[-5:])
    numbers = (f"{last:.3f}", f"{F.cross_entropy(logits, labels):.3f}", f"{accuracy:.1%}")
    print(ROW.format(name, suspect.name, *numbers), flush=True)


if __name__ == "__main__":
    main()
