"""Why did every net with batch norm do badly in the seed's table (one epoch: vgg16 57 %, vgg16_bn 27 %)?

python benchmarks/batchnorm.py [--pairs vgg11,vgg11_bn ...] [--only NAME ...] [--people 400] [--size 32x32] [--epochs 1]

One epoch of the seed's recipe (SGD at 1e-3 without momentum and decay, moving averages of statistics, from scratch) on
the drawn faces, and then one suspect after the other taken away, or put in:

    running statistics   recomputed on training photographs before validation, in place of the moving averages
    weight decay         0.05 in place of none
    learning rate        0.01, with the moving averages, and with recomputed statistics; 0.1
    weights              from a net that knows drawn faces (of other people), with a fresh last layer. The plain twin
                         gets the same weights, with batch norm folded into the convolutions: the same function
    weights of its own   likewise, but the plain twin learned to know faces by itself, as torchvision's nets did
    short features       the same function, with what the last layer gets a third as long; and 0.01 for it

And an epoch of our defaults, from scratch. Printed are the training loss of the last steps (in training's mode, whose
statistics are those of the batch), and the loss and accuracy on validation people, beside the accuracy of a net that
always says the commonest class; "none" where the loss was no finite number any more. "Features" is the mean length of
what the last layer gets: SGD moves a fresh last layer by its square.
"""

import copy
import dataclasses
import pathlib
import statistics
import tempfile

import common
import torch
from torch import nn
from torch.nn import functional as F

import dataset
import loss
import model
import train
from toolkit.config import defaults
from toolkit.config.settings import TrainSettings
from toolkit.data.framing import Framing
from toolkit.data.loader import Loader, split_into_batches
from toolkit.data.split import held_out_people, split_by_person
from toolkit.data.store import Store
from toolkit.demo import synthetic
from toolkit.models import fuse_batch_norm, placement
from toolkit.models.batch_norm import recompute_batch_norm_statistics
from toolkit.models.predict import predict
from toolkit.system import device
from toolkit.system.console import InputError
from toolkit.training import loop
from toolkit.training.step import Recipe, train_one_epoch
from toolkit.training.task import Task

ROW = "{:12} {:32} {:>9} {:>11} {:>9} {:>9}"
BATCH = 64
EPOCHS_TO_KNOW_FACES = 2


@dataclasses.dataclass(frozen=True)
class Suspect:
    """A way to train for an epoch by the seed's recipe, and to validate."""

    name: str
    lr: float = 1e-3
    weight_decay: float = 0.0
    recomputed: bool = False  # the statistics of batch norm, after training
    knows_faces: str = ""  # by which twin's learning
    length: float = 1.0  # what the features are multiplied by


DEFAULTS = "our defaults"
SUSPECTS = (
    Suspect("the seed's recipe"),
    Suspect("running statistics recomputed", recomputed=True),
    Suspect("weight decay 0.05", weight_decay=0.05),
    Suspect("learning rate 0.01", lr=0.01),
    Suspect("learning rate 0.01, recomputed", lr=0.01, recomputed=True),
    Suspect("learning rate 0.1", lr=0.1),
    Suspect("weights, the same function", knows_faces="normed"),
    Suspect("weights of its own", knows_faces="own"),
    Suspect("short features", knows_faces="normed", length=1 / 3),
    Suspect("short features, 0.01", knows_faces="normed", length=1 / 3, lr=0.01),
)


def main() -> None:
    parser = common.parser(__doc__)
    every = [suspect.name for suspect in SUSPECTS] + [DEFAULTS]
    parser.add_argument("--pairs", nargs="*", default=["vgg11,vgg11_bn"])
    parser.add_argument("--only", nargs="*", default=every, choices=every)
    parser.add_argument("--people", default=400, type=int)
    parser.add_argument("--size", default="32x32", type=lambda text: tuple(map(int, text.split("x"))))
    parser.add_argument("--epochs", default=1, type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        of, of_others = (read(pathlib.Path(scratch, str(seed)), options.people, seed, options.size) for seed in (0, 1))
        labels = of.labels[of.validation]
        steps = options.epochs * len(split_into_batches(of.train, BATCH))
        print(f"{len(of.train)} photographs of {options.size} in batches of {BATCH}: {steps} steps; our defaults: 32")
        commonest = (labels.bincount().max() / len(labels)).item()
        print(f"a net that always says the commonest class has an accuracy of {commonest:.1%}")
        print(ROW.format("net", "recipe", "features", "train loss", "val loss", "val acc"))
        for pair in options.pairs:
            twins = pair.split(",")
            suspects = [suspect for suspect in SUSPECTS if suspect.name in options.only]
            knowing = knowing_faces(*twins, of_others) if any(one.knows_faces for one in suspects) else {}
            for suspect in suspects:
                for name in twins if not suspect.recomputed else twins[1:]:  # the plain twin has no statistics
                    known = knowing.get((suspect.knows_faces, name))
                    net = with_fresh_head(known, suspect.length) if known else new(name, of.loader)
                    show(name, suspect.name, features(net, of), by_seed(net, suspect, of, options.epochs))
            for name in twins if DEFAULTS in options.only else ():
                net = new(name, of.loader)
                show(name, DEFAULTS, features(net, of), by_defaults(net, name, of, options.epochs))


def show(name: str, recipe: str, length: float, result: tuple[float, float, float] | None) -> None:
    cells = ("{:.3f}", "{:.3f}", "{:.1%}")
    numbers = ["none"] * 3 if result is None else [cell.format(n) for cell, n in zip(cells, result, strict=True)]
    print(ROW.format(name, recipe, f"{length:.2f}", *numbers), flush=True)


def read(folder: pathlib.Path, people: int, seed: int, size: tuple[int, int]) -> Task:
    synthetic.ensure(folder, people=people, eval_people=6, seed=seed)
    table, _ = dataset.read_faces(folder / "train")
    sides = split_by_person(table, held_out_people(table, 0.2, 0, 0, seed=42))
    store = Store(dataset.paths(table, folder / "train"), Framing(size))
    assert not store.fill()
    loader = Loader(store, device.choose("auto", "fp32"), model.MEAN, model.STD)
    return train.make_task(default_settings(1), train.Data(table), sides, loader)


def default_settings(epochs: int, name: str = "resnet18") -> TrainSettings:
    """As train.py has them if nothing else is set."""
    given = TrainSettings(name=name, weights="none", epochs=epochs)
    return defaults.resolve(given, dict.fromkeys(TrainSettings.model_fields, "default"))[0]


def new(name: str, loader: Loader) -> nn.Module:
    torch.manual_seed(42)
    return placement.to_device(model.build(name, loader.store.size)[0], loader.machine)


def knowing_faces(plain: str, normed: str, others: Task) -> dict[tuple[str, str], nn.Module]:
    """Nets that have learned from other people's faces, by (who learned, name).

    "normed": the net with batch norm learned, and the plain one computes the same function. "own": each learned itself.
    """
    own = {name: new(name, others.loader) for name in (plain, normed)}
    for name, net in own.items():
        by_defaults(net, name, others, EPOCHS_TO_KNOW_FACES)
    twin = new(plain, others.loader)
    inputs = next(others.loader.load([others.validation[:4]]))
    fused = fuse_batch_norm.fuse(own[normed].eval(), inputs)
    for mine, theirs in zip(layers(twin), layers(fused), strict=True):
        mine.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(twin.eval()(inputs), own[normed](inputs), rtol=1e-3, atol=1e-3)
    return {("normed", plain): twin, ("normed", normed): own[normed], **{("own", name): own[name] for name in own}}


def layers(net: nn.Module) -> list[nn.Module]:
    return [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


@torch.no_grad()
def with_fresh_head(net: nn.Module, length: float) -> nn.Module:
    net = copy.deepcopy(net)
    for weight in layers(net)[-2].parameters():  # behind it stand ReLU and dropout, through which a factor goes
        weight.mul_(length)
    torch.manual_seed(42)
    weight, bias = map(net.get_parameter, model.head_names(net))
    nn.init.normal_(weight, 0, 0.01)  # as torchvision does in these nets
    nn.init.zeros_(bias)
    return net


@torch.inference_mode()
def features(net: nn.Module, task: Task) -> float:
    """The mean length of what the last layer gets, as the net is before training."""
    seen = []
    hook = layers(net)[-1].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].norm(dim=1)))
    net.eval()(next(task.loader.load([task.validation[:64]])))
    hook.remove()
    return seen[0].mean().item()


def by_seed(net: nn.Module, suspect: Suspect, task: Task, epochs: int) -> tuple[float, float, float]:
    optimizer = torch.optim.SGD(net.parameters(), suspect.lr, weight_decay=suspect.weight_decay, fused=True)
    recipe = Recipe(lambda step: suspect.lr, BATCH, clip_grad=0.0, seed=42)
    plain = dataclasses.replace(task, criterion=loss.cross_entropy)
    return measure(net, optimizer, recipe, plain, epochs, suspect.recomputed)


def by_defaults(net: nn.Module, name: str, task: Task, epochs: int) -> tuple[float, float, float]:
    """As train.py does if nothing else is set."""
    config = default_settings(epochs, name)
    recipe = loop.make_recipe(config, len(split_into_batches(task.train, config.batch_size)))
    state = loop.make_train_state(config, net)
    return measure(net, state.optimizer, recipe, task, epochs, recomputed=True)


def measure(net, optimizer, recipe: Recipe, task: Task, epochs: int, recomputed: bool):
    """Train; the loss of the last five steps, and cross entropy and accuracy of validation. None if it diverges."""
    losses = []
    note = lambda done: losses.append(done[-1].item())  # noqa: E731
    try:
        for epoch in range(epochs):
            train_one_epoch(net, optimizer, task, recipe, epoch, after_step=note)
    except InputError:
        return None
    if recomputed:
        batches = split_into_batches(task.train, recipe.batch_size)[: loop.BATCHES_FOR_STATISTICS]
        recompute_batch_norm_statistics(net, task.loader, batches)
    logits = predict(net, task.loader, task.validation).to(task.labels.device)
    labels = task.labels[task.validation]
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    return statistics.mean(losses[-5:]), F.cross_entropy(logits, labels).item(), accuracy


if __name__ == "__main__":
    main()
