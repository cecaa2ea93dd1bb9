"""Photographs per second of training and of inference, beside the loops that people write and beside the net alone.

python benchmarks/throughput.py [--backbones resnet18,alexnet] [--sizes 128x96,224x168] [--turns 5] [--people 100]

Measured in turns, so that a machine that slows down slows all of them down:

    plain     the loop as people write it: Dataset, Pillow, DataLoader with worker processes, float32
    careful   the same loop with channels_last and bf16
    ours      this project's own functions: an epoch on decoded photographs, bare and with AUGMENT=light;
              inference.py from files to output.csv; and its prediction once they are decoded
    limit     the same net in the same form on one batch that is where it is needed, and nothing else

Prints medians over the turns with the smallest and the largest, and ratios of medians; appends them to throughput.csv
beside this file (--csv names another).
"""

import contextlib
import copy
import csv
import dataclasses
import datetime
import io
import pathlib
import platform
import statistics
import tempfile
import time

import common
import numpy as np
import photographs
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torchvision import transforms

import dataset
import inference
import loss
import model
from toolkit.config import sources
from toolkit.config.types import height_and_width
from toolkit.data import augment
from toolkit.data.framing import Framing
from toolkit.data.loader import Loader, split_into_batches
from toolkit.data.store import Store, cpu_count
from toolkit.labels import CLASSES
from toolkit.models import fuse_batch_norm, placement
from toolkit.models.batch_norm import recompute_batch_norm_statistics
from toolkit.models.predict import predict
from toolkit.runs.weights import WEIGHTS, Header, save_weights
from toolkit.scoring.decision import Decision
from toolkit.scoring.prior_correction import PriorCorrection
from toolkit.system import device
from toolkit.training.optimizer import make_optimizer
from toolkit.training.sampler import epoch_order
from toolkit.training.step import Recipe, train_one_epoch
from toolkit.training.task import Task

LR = 5e-4
RATIOS = {
    "train": [
        ("ours", "limit"),
        ("ours, augmented", "limit"),
        ("ours, augmented", "plain"),
        ("ours, augmented", "careful"),
    ],
    "infer": [("ours", "plain"), ("ours", "careful"), ("ours, decoded", "limit")],
}


class Photographs(torch.utils.data.Dataset):
    """As people write it."""

    def __init__(self, paths, labels, transform):
        self.paths, self.labels, self.transform = paths, labels, transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.transform(Image.open(self.paths[index]).convert("RGB")), self.labels[index]


class Bench:
    """One backbone at one size on photographs in files. Each way gives a function that tells its photographs/s."""

    batch, steps = 64, 6  # photographs a step, and steps that are timed

    def __init__(
        self, name: str, size: tuple[int, int], folder: pathlib.Path, most: int | None = None, where: str = "auto"
    ):
        """On the photographs of this folder, `most` of them at most; `where` is the device."""
        self.name, self.size, self.folder = name, size, folder
        self.machine = device.choose(where, "auto")
        self.cuda = self.machine.device.type == "cuda"
        torch.manual_seed(0)
        self.untrained, _ = model.build(name, size)
        table = dataset.read_faces(folder)[0].iloc[:most]
        self.paths, labels = dataset.paths(table, folder).astype(str).tolist(), dataset.labels(table)
        store = Store(self.paths, Framing(size))
        assert not store.fill()
        self.loader = Loader(store, self.machine, model.MEAN, model.STD)
        self.loader.move_to_gpu()
        self.everything = np.arange(len(self.paths))
        labels = torch.from_numpy(labels).to(self.machine.device)
        self.task = Task(
            self.loader, dataset.paths(table), table["person"], labels, labels, self.everything, self.everything[:0],
            criterion=loss.cross_entropy,
        )  # fmt: skip

    def ways(self, task: str) -> dict:
        if task == "train":
            return {
                "plain": self.train_loop(careful=False),
                "careful": self.train_loop(careful=True),
                "ours": self.train_ours("none"),
                "ours, augmented": self.train_ours("light"),
                "limit": self.train_limit(),
            }
        trained = self.trained()
        return {
            "plain": self.infer_loop(trained, careful=False),
            "careful": self.infer_loop(trained, careful=True),
            "ours": self.infer_ours(trained),
            "ours, decoded": self.infer_decoded(trained),
            "limit": self.infer_limit(trained),
        }

    def plain_loader(self, augmentation: list, **options):
        normalise = transforms.Normalize(model.MEAN, model.STD)
        steps = [transforms.Resize(self.size), *augmentation, transforms.ToTensor(), normalise]
        data = Photographs(self.paths, self.task.labels.tolist(), transforms.Compose(steps))
        return torch.utils.data.DataLoader(data, self.batch, num_workers=cpu_count(), pin_memory=self.cuda, **options)

    def train_loop(self, careful: bool, loader=None):
        """With its own loader of files, or with another one."""
        loader = loader or self.plain_loader(
            [transforms.RandomHorizontalFlip()], shuffle=True, drop_last=True, persistent_workers=True
        )
        warm_up = 2 * cpu_count()  # batches that the workers have ready from the last turn, at no cost now
        batches = (batch for _ in iter(int, 1) for batch in loader)  # without end
        net = copy.deepcopy(self.untrained).to(self.machine.device, memory_format=layout(careful))
        optimizer = torch.optim.AdamW(net.parameters(), LR)

        def measure() -> float:
            net.train()
            for number in range(warm_up + self.steps):
                if number == warm_up:
                    started = self.now()
                inputs, labels = (part.to(self.machine.device, non_blocking=True) for part in next(batches))
                with self.autocast(careful):
                    logits = net(inputs.to(memory_format=layout(careful)))
                value = F.cross_entropy(logits.float(), labels)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
            return self.steps * self.batch / (self.now() - started)

        return measure

    def train_ours(self, policy: str, compiled=lambda net: net):
        net = placement.to_device(copy.deepcopy(self.untrained), self.machine)
        train_model = compiled(net)
        optimizer, recipe, epochs = make_optimizer("adamw", net, LR, 0.05), self.recipe(policy), iter(range(10**6))

        def measure() -> float:
            epoch = next(epochs)
            some = epoch_order(self.everything, 0, epoch)[: self.steps * self.batch]
            started = self.now()
            train_one_epoch(train_model, optimizer, dataclasses.replace(self.task, train=some), recipe, epoch)
            return len(some) / (self.now() - started)

        return measure

    def train_limit(self):
        net = placement.to_device(copy.deepcopy(self.untrained), self.machine).train()
        optimizer = make_optimizer("adamw", net, LR, 0.05)
        inputs, labels = next(self.loader.load([self.everything[: self.batch]])), self.task.labels[: self.batch]

        def measure() -> float:
            started = self.now()
            for _ in range(self.steps):
                with self.machine.autocast():
                    logits = net(inputs)
                value = F.cross_entropy(logits.float(), labels)
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
            return self.steps * self.batch / (self.now() - started)

        return measure

    def trained(self):
        """A net that has learned something: of one that has not, prediction would not trust bf16."""
        net = placement.to_device(copy.deepcopy(self.untrained), self.machine)
        optimizer = make_optimizer("adamw", net, LR, 0.05)
        for epoch in range(3):
            train_one_epoch(net, optimizer, self.task, self.recipe("none"), epoch)
        recompute_batch_norm_statistics(net, self.loader, split_into_batches(self.everything, self.batch)[:8])
        return net.eval()

    def infer_loop(self, trained, careful: bool):
        net = copy.deepcopy(self.untrained).to(self.machine.device, memory_format=layout(careful)).eval()
        net.load_state_dict(trained.state_dict())

        @torch.inference_mode()
        def measure() -> float:
            started, answers = self.now(), []
            for inputs, _ in self.plain_loader([]):
                inputs = inputs.to(self.machine.device, memory_format=layout(careful))
                with self.autocast(careful):
                    answers += net(inputs).argmax(1).tolist()
            with open(self.folder / "output.csv", "w", newline="") as file:
                csv.writer(file).writerows([("ImageID", "ans"), *zip(self.paths, answers, strict=True)])
            return len(self.paths) / (self.now() - started)

        return measure

    def infer_ours(self, trained):
        self.write_run(trained)
        self.write_info(len(self.paths))
        flags = sources.as_flags(
            {
                "sm_channel_eval": self.folder,
                "sm_channel_model": self.folder / "run",
                "sm_output_data_dir": self.folder / "out",
            }
        )

        def measure() -> float:
            started = self.now()
            with contextlib.redirect_stdout(io.StringIO()):
                inference.main(flags)
            return len(self.paths) / (self.now() - started)

        return measure

    def write_run(self, trained) -> None:
        """As folder/run, for inference.py."""
        run = self.folder / "run"
        run.mkdir(exist_ok=True)
        even = (1 / CLASSES,) * CLASSES
        decision, scores = Decision(1.0, 0.0, PriorCorrection(even, even)), {"epoch": 3, "macro_f1": 0.0}
        header = Header("run", self.name, "flat", Framing(self.size), model.MEAN, model.STD, decision, scores)
        save_weights(run / WEIGHTS, trained.state_dict(), header)

    def write_info(self, count: int) -> None:
        """folder/info.csv of the first photographs."""
        names = [pathlib.Path(path).relative_to(self.folder / "images") for path in self.paths[:count]]
        (self.folder / "info.csv").write_text("ImageID,ans\n" + "".join(f"{name},0\n" for name in names))

    def infer_decoded(self, trained):
        def measure() -> float:
            started = self.now()
            predict(trained, self.loader, self.everything)
            return len(self.paths) / (self.now() - started)

        return measure

    def infer_limit(self, trained):
        batch = self.machine.prediction_batch_size(self.size)
        inputs = next(self.loader.load([self.everything[:batch]]))
        net = fuse_batch_norm.cast(fuse_batch_norm.fuse(trained, inputs), self.machine.precision)
        inputs, steps = inputs.to(self.machine.precision), len(self.paths) // len(inputs)

        @torch.inference_mode()
        def measure() -> float:
            started = self.now()
            for _ in range(steps):
                net(inputs)
            return steps * len(inputs) / (self.now() - started)

        return measure

    def recipe(self, policy: str) -> Recipe:
        return Recipe(lambda step: LR, self.batch, 1.0, 0, augment.POLICIES[policy])

    def autocast(self, careful: bool):
        return self.machine.autocast() if careful else contextlib.nullcontext()

    def now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


def layout(careful: bool) -> torch.memory_format:
    return torch.channels_last if careful else torch.contiguous_format


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--backbones", default="resnet18", type=common.words)
    parser.add_argument("--sizes", default="128x96,224x168", type=common.words)
    parser.add_argument("--tasks", default="train,infer", type=common.words)
    parser.add_argument("--turns", default=5, type=int)
    parser.add_argument("--people", default=100, type=int, help="people to draw, with 21 photographs each")
    parser.add_argument("--csv", default=pathlib.Path(__file__).with_suffix(".csv"), type=pathlib.Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        photographs.make(folder, options.people, copies=3)
        for name in options.backbones:
            for size in options.sizes:
                bench = Bench(name, height_and_width(size), folder)
                for task in options.tasks:
                    report(bench, task, common.in_turns(bench.ways(task), options.turns, warm_up=1), options.csv)


def report(bench: Bench, task: str, rates: dict[str, list[float]], path: pathlib.Path) -> None:
    size, medians = "x".join(map(str, bench.size)), {way: statistics.median(values) for way, values in rates.items()}
    print(f"\n{task} {bench.name} {size} on {bench.machine}, {cpu_count()} CPUs, median of {len(rates['limit'])}")
    for way, values in rates.items():
        print(f"  {way:16} {common.as_text(values, '.1f')} photographs/s")
    for way, other in RATIOS[task]:
        print(f"  {way + ' / ' + other:32} {medians[way] / medians[other]:6.3f}", flush=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(
                ["date", "machine", "versions", "task", "backbone", "size", "way", "median", "low", "high", "n"]
            )
        machine = f"{bench.machine.device.type} {cpu_count()} CPUs {platform.machine()} {bench.machine}"
        versions = f"torch {torch.__version__} torchvision {torchvision.__version__} python {platform.python_version()}"
        for way, values in rates.items():
            numbers = [round(value, 1) for value in common.summary(values)]
            where = [datetime.date.today(), machine, versions, task, bench.name, size]
            writer.writerow([*where, way, *numbers, len(values)])


if __name__ == "__main__":
    main()
