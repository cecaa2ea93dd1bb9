"""How long people wait: for an answer to a wrong setting, for help, for scores, and for the first batch, part by part.

python benchmarks/startup.py [--turns 5] [--people 100] [--copies 1]

Whole processes, medians over the turns. The parts of train.py's start are those of one process, in their order; the
photographs are JPEGs of 384 x 512 that are brought to 128x96, once decoded and once found in CACHE_DIR.
"""

import pathlib
import subprocess
import sys
import tempfile
from functools import partial

import common
import photographs

PARTS = """
import sys, time
clock = [("", time.perf_counter())]
def part(name): clock.append((name, time.perf_counter()))
import dataset, loss, model, train
part("our own modules, pydantic, numpy")
from toolkit.config import defaults, settings, sources
config, origin = sources.read(settings.TrainSettings, sys.argv[1:], train.CHOICES)
config, origin = defaults.resolve(config, origin)
part("settings")
import pandas
part("pandas")
data = train.read_data(config)
table, (sides, *_) = data.table, data.splits
part("folder, corrections, split")
import torch
part("torch")
config, origin = train.crop_to_faces(config, origin, table)
part("crop to the faces")
from toolkit.data.disk_cache import open_store
from toolkit.data.framing import Framing
paths = dataset.paths(table, config.sm_channel_train)
with open_store(paths, Framing.of(config), config.cache_gib, config.cache_dir) as store:
    import torchvision
    part("torchvision, beside decoding")
    backbone = train.build_model(config)
    part("model, beside decoding")
    store.wait()
    part("the rest of decoding")
    loader = train.make_loader(store, backbone)
    task = train.make_task(config, data, sides, loader)
    from toolkit.training import loop
    loop.make_train_state(config, backbone.model)
    inputs = next(loader.load([sides.train[:64]]))
    part("optimizer and first batch")
open_store(paths, Framing.of(config), config.cache_gib, config.cache_dir).fill()
part(f"(the store of {len(paths)} once more, alone)")
for (_, before), (name, after) in zip(clock, clock[1:]):
    print(f"{name}\\t{after - before}", file=sys.stderr)
"""


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--turns", default=5, type=int)
    parser.add_argument("--people", default=100, type=int)
    parser.add_argument("--copies", default=1, type=int, help="of each person, to have many photographs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        answers = "ImageID,ans\n" + "".join(f"{number:040}.jpg,{number % 18}\n" for number in range(12_600))
        for name in ("gt.csv", "output.csv"):
            (folder / name).write_text(answers)
        whole = {
            "train.py, three wrong settings": ["train.py", "--epochs", "x", "--name", "resnet19", "--loss", "fo"],
            "train.py, no such folder": ["train.py", "--sm_channel_train", "/no", "--sm_model_dir", scratch],
            "inference.py, no such folder": ["inference.py", "--sm_channel_eval", "/no"],
            **{f"{name} --help": [name, "--help"] for name in ("train.py", "inference.py", "evaluation.py")},
            "evaluation.py, 12,600 rows": [
                "evaluation.py", "--sm_ground_truth_dir", scratch, "--sm_output_data_dir", scratch
            ],
        }  # fmt: skip
        for name, words in whole.items():
            run = partial(subprocess.run, [sys.executable, *words], cwd=common.ROOT, capture_output=True)
            show(name, [common.seconds(run) for _ in range(options.turns)])
        images = photographs.make(folder, options.people, options.copies)
        flags = ["--sm_channel_train", images, "--sm_model_dir", folder, "--weights", "none"]
        parts_of_start("decoded", flags, options.turns)
        parts_of_start("from CACHE_DIR", [*flags, "--cache_dir", folder / "cache"], options.turns)


def parts_of_start(how: str, flags: list, turns: int) -> None:
    print(f"\nstart of train.py, photographs {how}")
    runs = []
    for _ in range(turns + 1):  # the first one fills the cache
        said = common.run_code(PARTS, *flags).stderr
        lines = [line.split("\t") for line in said.splitlines() if "\t" in line]
        runs.append({name: float(value) for name, value in lines})
    for name in runs[0]:
        show(name, [run[name] for run in runs[1:]])
    show("all but the last", [sum(list(run.values())[:-1]) for run in runs[1:]])


def show(name: str, values: list[float]) -> None:
    print(f"  {name:42} {common.as_text(values)} s", flush=True)


if __name__ == "__main__":
    main()
