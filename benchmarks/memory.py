"""Does memory or time grow with the number of photographs? Peak resident memory of train.py for ever more of them.

python benchmarks/memory.py [--counts 2000,20000,200000] [--cache_gib 0.02]

The photographs are small (48 x 64) links to a few drawn ones; a net of two layers is trained for an epoch at 48x36, so
that what grows is not hidden by the net. CACHE_GIB is what decoded photographs may take of memory.
"""

import os
import pathlib
import re
import tempfile
import time

import common
from PIL import Image

from toolkit.demo import synthetic

TRAIN = """
import resource, sys, time
import model, train
from toolkit.training import loop

def tiny(classes):
    from torch import nn
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))

began, train_model = time.perf_counter(), loop.train

def timed(*given):
    print("until training", time.perf_counter() - began, "s")
    return train_model(*given)

loop.train = timed
model.OWN["tiny"] = tiny
train.CHOICES["name"] = ["tiny"]
train.main(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB")
"""
ROW = "{:>12} {:>12} {:>10} {:>24} {:>24} {:>12}"


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--counts", default="2000,20000,200000", type=common.numbers)
    parser.add_argument("--cache_gib", default="0.02")
    options = parser.parse_args()
    print(
        ROW.format("photographs", "store, MiB", "peak, MiB", "until training, ms each", "training, ms each", "seconds")
    )
    with tempfile.TemporaryDirectory() as scratch:
        few = small_photographs(pathlib.Path(scratch))
        for count in options.counts:
            measure(link(few, pathlib.Path(scratch, str(count)), count), pathlib.Path(scratch), options.cache_gib)


def small_photographs(folder: pathlib.Path) -> list[pathlib.Path]:
    synthetic.ensure(folder / "drawn", people=10, eval_people=6)
    for path in (folder / "drawn" / "train" / "images").glob("*/*.*"):
        Image.open(path).convert("RGB").resize((48, 64)).save(path.with_suffix(".jpg"))
    return sorted((folder / "drawn" / "train" / "images").glob("*/*.jpg"))


def link(few: list[pathlib.Path], images: pathlib.Path, count: int) -> pathlib.Path:
    for person in range(count // 7):
        folder = images / f"{person:06}_{('male', 'female')[person % 2]}_Drawn_{18 + person % 43}"
        folder.mkdir(parents=True)
        for photograph in few[person % 10 * 7 :][:7]:
            os.link(photograph, folder / photograph.name)
    return images


def measure(images: pathlib.Path, scratch: pathlib.Path, cache_gib: str) -> None:
    flags = ["--sm_channel_train", images, "--sm_model_dir", scratch / "runs", "--cache_gib", cache_gib]
    flags += ["--name", "tiny", "--weights", "none", "--size", "48x36", "--epochs", "1", "--batch_size", "256"]
    started = time.perf_counter()
    said = common.run_code(TRAIN, *flags).stdout
    taken = time.perf_counter() - started
    count, store = re.search(r"decoded (\d+) photographs, (\d+) MiB", said).groups()
    until = re.search(r"until training ([\d.]+) s", said)[1]
    rate = float(re.search(r"([\d.]+) photographs/s", said)[1])
    peak = float(re.search(r"peak ([\d.]+) MiB", said)[1])
    numbers = (count, store, f"{peak:.0f}", f"{1000 * float(until) / int(count):.3f}", f"{1000 / rate:.3f}")
    print(ROW.format(*numbers, f"{taken:.1f}"), flush=True)


if __name__ == "__main__":
    main()
