"""Does the fast form keep the results? Training in bf16 against float32, and fast prediction against the plain net.

python benchmarks/precision.py [--seeds 42,1,2] [flags of train.py, such as --epochs 7]

For each seed and precision train.py trains on the drawn faces with its own defaults for them, and evaluation.py scores
the answers of inference.py about the drawn eval people. Then every drawn photograph is predicted by each net, plainly
(float32, batch norm as it was trained) and as inference.py does; printed are the photographs of the same class, the
largest difference of a logit beside the spread of all logits, and the photographs that were predicted twice.
"""

import pathlib
import statistics
import tempfile

import common
import numpy as np
import torch

import model
from toolkit.config import settings
from toolkit.data.loader import Loader, split_into_batches
from toolkit.data.store import Store
from toolkit.demo import synthetic
from toolkit.models import placement
from toolkit.models.predict import predict
from toolkit.system import device


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", default="42,1,2", type=common.words)
    options, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        data, folder = pathlib.Path(scratch, "data"), pathlib.Path(scratch)
        synthetic.ensure(data)
        scores = {"fp32": [], "bf16": []}
        for seed in options.seeds:
            for precision in scores:
                run = folder / f"{precision}-{seed}"
                score = train_and_score(run, data, flags, {"SEED": seed, "PRECISION": precision})
                scores[precision].append(score)
                same = prediction(run / "runs" / "resnet18", data)
                print(f"seed {seed:4} {precision}: macro F1 {score:.4f}; {same}", flush=True)
        for precision, values in scores.items():
            spread = f"{min(values):.4f} to {max(values):.4f}"
            print(f"{precision}: mean {statistics.mean(values):.4f} ({spread}), n = {len(values)}")


def train_and_score(run: pathlib.Path, data: pathlib.Path, flags: list[str], given: dict[str, str]) -> float:
    own = {f"--{name}": str(value).lower() for name, value in settings.TrainSettings.DEMO_DEFAULTS.items()}
    common.run_script("train.py", *[word for pair in own.items() for word in pair], *flags,
          SM_CHANNEL_TRAIN=data / "train" / "images", SM_MODEL_DIR=run / "runs", **given)  # fmt: skip
    common.run_script(
        "inference.py", SM_CHANNEL_EVAL=data / "eval", SM_CHANNEL_MODEL=run / "runs", SM_OUTPUT_DATA_DIR=run
    )
    said = common.run_script("evaluation.py", SM_GROUND_TRUTH_DIR=data / "eval", SM_OUTPUT_DATA_DIR=run)
    return float(said.split("\nmacro F1 ")[1].split()[0])


@torch.inference_mode()
def prediction(run: pathlib.Path, data: pathlib.Path) -> str:
    net, header = model.load(run / "model.safetensors")
    net.eval()
    store = Store(sorted(str(path) for path in data.rglob("images/**/*.*")), header.framing)
    assert not store.fill()
    everything = np.arange(len(store))
    plainly, quickly = (
        Loader(store, device.choose("cpu", precision), header.mean, header.std) for precision in ("fp32", "bf16")
    )
    plain = torch.cat([net(inputs.contiguous()) for inputs in plainly.load(split_into_batches(everything, 64))])
    seen = []
    load = quickly.load
    quickly.load = lambda batches: (seen.append(sum(map(len, batches))), load(batches))[1]
    quick = predict(placement.to_device(net, quickly.machine), quickly, everything)
    same = (plain.argmax(1) == quick.argmax(1)).float().mean().item()
    difference, spread = (plain - quick).abs().max().item(), plain.std().item()
    logits = f"logits to {difference:.3f} (spread {spread:.2f})"
    return f"same class {same:.3%} of {len(store)}, {logits}, {sum(seen) - len(store)} predicted twice"


if __name__ == "__main__":
    main()
