"""Does every backbone survive its export to ONNX, and how fast is the file? Untrained nets on drawn faces.

python benchmarks/exports.py [--backbones resnet18,vgg11] [--sizes 128x96] [--heads flat,factored] [--turns 3]

So that differences show, weights are drawn anew, norms get the statistics of these faces, and logits are scaled to a
spread of 1. Printed are the largest difference of a probability from torch's, for batches of 1, 3 and 5, and whether
all classes are the same.
Photographs per second are medians over turns of torch in float32 and onnxruntime, on one store of decoded faces, with
as many threads as torch has (OMP_NUM_THREADS).
"""

import contextlib
import io
import pathlib
import statistics
import tempfile
import time

import common
import numpy as np
import photographs
import torch

import export
import model
from toolkit.config.types import height_and_width
from toolkit.data.framing import Framing
from toolkit.data.loader import Loader
from toolkit.data.store import Store
from toolkit.labels import CLASSES
from toolkit.models import onnx_export, onnx_file, placement
from toolkit.models.batch_norm import recompute_batch_norm_statistics
from toolkit.models.predict import predict
from toolkit.runs.weights import Header
from toolkit.scoring.decision import Decision
from toolkit.scoring.prior_correction import PriorCorrection
from toolkit.system import device

BATCHES = (1, 3, 5)
ROW = "| {:16} | {:8} | {:7} | {:>6} | {:>6} | {:>8} | {:>8} | {:>8} | {:7} | {:>6} | {:>6} |"
COLUMNS = ("backbone", "head", "size", "s", "MiB", "batch 1", "batch 3", "batch 5", "classes", "torch", "onnx")


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--backbones", default=model.BACKBONES, type=common.words)
    parser.add_argument("--sizes", default="128x96,224x168", type=common.words)
    parser.add_argument("--heads", default="flat,factored", type=common.words)
    parser.add_argument("--turns", default=0, type=int, help="of the measurement of speed; 0 leaves it out")
    parser.add_argument("--people", default=2, type=int, help="people to draw, with 7 photographs each")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {7 * options.people} photographs")
    print(ROW.format(*COLUMNS))
    with tempfile.TemporaryDirectory() as scratch:
        paths = list(map(str, photographs.make_few(pathlib.Path(scratch), options.people)))
        for size in options.sizes:
            store = Store(paths, Framing(height_and_width(size)))
            store.fill()
            for name in options.backbones:
                for head in options.heads:
                    print(ROW.format(name, head, size, *measure(name, head, store, options.turns)), flush=True)


def measure(name: str, head: str, store: Store, turns: int) -> list[str]:
    """The cells of a row, after its first three."""
    machine = device.choose("cpu", "fp32")
    loader, everything = Loader(store, machine, model.MEAN, model.STD), np.arange(len(store))
    torch.manual_seed(0)
    net, _ = model.build(name, store.size, head=head)
    wake(net)
    recompute_batch_norm_statistics(net, loader, [everything[:14]])
    spread = float(predict(net, loader, everything[:14])[:, :CLASSES].std(1).mean())
    header = Header(name, name, head, store.framing, model.MEAN, model.STD, uneven(spread))
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        made = onnx_export.build(net, header)
        content = onnx_file.as_bytes(made, header)
        onnx_export.check_form(made, content)
    export_seconds = time.perf_counter() - started
    candidate = onnx_file.OnnxModel(pathlib.Path("model.onnx"), content)
    farthest, same = export.compare(net, header, candidate, store, BATCHES)
    placement.to_device(net, machine)
    batch_size = machine.prediction_batch_size(store.size)
    ways = {
        "torch": lambda: common.seconds(lambda: predict(net, loader, everything)),
        "onnx": lambda: common.seconds(lambda: candidate.predict(store, batch_size)),
    }
    seconds = common.in_turns(ways, turns)
    distances = [f"{farthest[size]:.1e}" for size in BATCHES]
    speeds = [f"{len(store) / statistics.median(values):.0f}" if turns else "" for values in seconds.values()]
    return [f"{export_seconds:.1f}", f"{len(content) / 2**20:.0f}", *distances, "same" if same else "OTHER", *speeds]


def wake(net) -> None:
    """Draw new weights. With torchvision's initial ones, vgg and alexnet give every photograph the same logits."""
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                torch.nn.init.zeros_(layer.bias)


def uneven(temperature: float) -> Decision:
    """A decision in which every part acts."""
    rng = np.random.default_rng(0)
    priors, sampled_priors = rng.dirichlet(np.full(CLASSES, 5.0), 2)
    correction = PriorCorrection(tuple(priors), tuple(sampled_priors), tuple(rng.uniform(0.5, 2, CLASSES)))
    return Decision(temperature, 0.5, correction)


if __name__ == "__main__":
    main()
