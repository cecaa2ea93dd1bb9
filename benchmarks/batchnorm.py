"""Why did every net with batch norm do badly in the seed's table (one epoch: vgg16 57 %, vgg16_bn 27 %)?

python benchmarks/batchnorm.py [--pairs vgg11,vgg11_bn ...] [--people 400] [--size 32x32] [--epochs 1]

One epoch of the seed's recipe (SGD at 1e-3 without momentum and decay, moving averages of statistics, from scratch) on
the drawn faces, and then one suspect after the other taken away, or put in:

    running statistics   settled on training photographs before validation, in place of the moving averages
    weight decay         0.05 in place of none
    learning rate        0.1, with statistics settled, and with the moving averages
    weights              from a net that knows drawn faces (of other people), with a fresh last layer. The plain twin
                         gets the same weights, with batch norm folded into the convolutions: the same function
    our defaults         AdamW, warm-up, cosine, light augmentation, settled statistics

Printed are the training loss of the last steps (in training's mode, whose statistics are those of the batch), and the
loss and accuracy on validation people, beside the accuracy of a net that always says the commonest class.
"""

import argparse
import copy
import dataclasses
import pathlib
import statistics
import sys
import tempfile
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dataset  # noqa: E402
import loss  # noqa: E402
import model  # noqa: E402
import train  # noqa: E402
from toolkit import augment, device, engine, folding, optimization, sample, settings  # noqa: E402
from toolkit.store import Store  # noqa: E402

ROW = "{:12} {:38} {:>10} {:>10} {:>10}"
BATCH = 64
EPOCHS_TO_KNOW_FACES = 4


@dataclasses.dataclass(frozen=True)
class Suspect:
    """A way to train for an epoch, and to validate."""

    name: str
    lr: float = 1e-3
    weight_decay: float = 0.0
    settled: bool = False
    knows_faces: bool = False
    defaults: bool = False


SEED = Suspect("the seed's recipe")
DEFAULTS = Suspect("our defaults", defaults=True, settled=True)
SUSPECTS = (
    SEED,
    Suspect("running statistics settled", settled=True),
    Suspect("weight decay 0.05", weight_decay=0.05),
    Suspect("learning rate 0.1", lr=0.1),
    Suspect("learning rate 0.1, settled", lr=0.1, settled=True),
    Suspect("weights that know faces", knows_faces=True),
    DEFAULTS,
)


@dataclasses.dataclass(frozen=True)
class Data:
    """Drawn faces, and which of them to train and to validate on."""

    faces: engine.Faces
    sides: dataset.Split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="*", default=["vgg11,vgg11_bn", "vgg16,vgg16_bn"])
    parser.add_argument("--people", default=400, type=int)
    parser.add_argument("--size", default="32x32", type=lambda text: tuple(map(int, text.split("x"))))
    parser.add_argument("--epochs", default=1, type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        of, of_others = (read(pathlib.Path(scratch, str(seed)), options.people, seed, options.size) for seed in (0, 1))
        labels = of.faces.labels[of.sides.validation]
        steps = options.epochs * len(engine.batches(of.sides.train, BATCH))
        print(f"{len(of.sides.train)} photographs of {options.size} in batches of {BATCH}: {steps} steps")
        commonest = (labels.bincount().max() / len(labels)).item()
        print(f"a net that always says the commonest class has an accuracy of {commonest:.1%}")
        print(ROW.format("net", "recipe", "train loss", "val loss", "val acc"))
        for pair in options.pairs:
            plain, normed = pair.split(",")
            knows = knowing_faces(plain, normed, of_others)
            for suspect in SUSPECTS:
                for name in (plain, normed):
                    net = with_fresh_head(knows[name]) if suspect.knows_faces else new(name, of.faces)
                    losses, seen, right = measure(net, suspect, of, options.epochs)
                    print(ROW.format(name, suspect.name, f"{losses:.3f}", f"{seen:.3f}", f"{right:.1%}"), flush=True)


def read(folder: pathlib.Path, people: int, seed: int, size: tuple[int, int]) -> Data:
    sample.ensure(folder, people=people, eval_people=6, seed=seed)
    table, _ = dataset.read_faces(folder / "train")
    sides = dataset.split(table, dataset.hold_out(table, 0.2, 0, 0, seed=42))
    store = Store(dataset.paths(table, folder / "train"), size)
    assert not store.fill()
    machine = device.choose("auto", "fp32")
    return Data(engine.Faces(store, machine, train.MEAN, train.STD, dataset.labels(table)), sides)


def new(name: str, faces: engine.Faces) -> nn.Module:
    torch.manual_seed(42)
    return faces.machine.place(model.build(name, faces.store.size, pretrained=False)[0])


def knowing_faces(plain: str, normed: str, others: Data) -> dict[str, nn.Module]:
    """Both nets with the same knowledge of other people's faces: they compute the same function."""
    knows, twin = new(normed, others.faces), new(plain, others.faces)
    measure(knows, DEFAULTS, others, EPOCHS_TO_KNOW_FACES)
    inputs = next(others.faces.batches([others.sides.validation[:4]]))
    folded = folding.fold(knows.eval(), inputs)
    pairs = zip(layers(twin), layers(folded), strict=True)
    for mine, theirs in pairs:
        mine.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(twin.eval()(inputs), knows(inputs), rtol=1e-3, atol=1e-3)
    return {plain: twin, normed: knows}


def layers(net: nn.Module) -> list[nn.Module]:
    return [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def with_fresh_head(net: nn.Module) -> nn.Module:
    net = copy.deepcopy(net)
    torch.manual_seed(42)
    weight, bias = model.head_weights(net)
    nn.init.normal_(weight, 0, 0.01)  # as torchvision does in these nets
    nn.init.zeros_(bias)
    return net


def measure(net: nn.Module, suspect: Suspect, data: Data, epochs: int) -> tuple[float, float, float]:
    """Train; the loss of the last five steps, and loss and accuracy of validation."""
    faces, sides = data.faces, data.sides
    steps = epochs * len(engine.batches(sides.train, BATCH))
    if suspect.defaults:
        lr = settings.OPTIMIZERS_OWN["adamw"]["lr"] / 5  # as train.py does with model.WIDE_AT_THE_END
        optimizer = optimization.build("adamw", net, lr, 0.05)
        rate = partial(optimization.learning_rate, steps=steps, highest=lr, warmup=0.1, schedule="cosine")
    else:
        optimizer = torch.optim.SGD(net.parameters(), suspect.lr, weight_decay=suspect.weight_decay, fused=True)
        rate = lambda step: suspect.lr  # noqa: E731
    policy = augment.POLICIES["light" if suspect.defaults else "none"]
    recipe = engine.Recipe(loss.cross_entropy, rate, policy, BATCH, 1.0 if suspect.defaults else 0.0, 42)
    losses = []
    for epoch in range(epochs):
        engine.train_one_epoch(
            net, optimizer, recipe, faces, sides.train, epoch, after_step=lambda done: losses.append(done[-1].item())
        )
    if suspect.settled:
        engine.settle_batch_norm(net, faces, engine.batches(sides.train, BATCH)[:16])
    logits = engine.predict(net, faces, sides.validation).to(faces.labels.device)
    labels = faces.labels[sides.validation]
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    return statistics.mean(losses[-5:]), F.cross_entropy(logits, labels).item(), accuracy


if __name__ == "__main__":
    main()
