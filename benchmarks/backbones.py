"""Do the defaults train every backbone? Each is trained from scratch by train.py on drawn faces, for a few epochs.

python benchmarks/backbones.py [--key value of train.py ...]

A net that does not look at the pixels can bring the loss down to the entropy of the class shares and no further: where
the column "/ entropy" is below 1, that was learned from faces. Deep nets learn slowly from scratch; a few epochs on a
few hundred photographs say whether a backbone trains with these settings, and nothing about which is the better one.
"""

import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import pandas as pd

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dataset  # noqa: E402
import model  # noqa: E402
from toolkit.demo import synthetic  # noqa: E402

PEOPLE, SIZE, EPOCHS = 120, "64x64", 4
ROW = "{:18} {:>10} {:>10} {:>10} {:>10}"


def main(flags: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        data, runs = pathlib.Path(scratch, "data"), pathlib.Path(scratch, "runs")
        synthetic.ensure(data, people=PEOPLE, eval_people=6)
        entropy = share_entropy(data / "train" / "images")
        print(f"{PEOPLE} people, {SIZE}, {EPOCHS} epochs, from scratch; entropy of the class shares {entropy:.3f}")
        print(ROW.format("backbone", "first loss", "last loss", "/ entropy", "macro F1"))
        for name in model.BACKBONES:
            train(name, data, runs, flags)
            history = pd.read_csv(runs / name / "history.csv")
            first, last = history["train_loss"].iloc[[0, -1]]
            scores = (first, last, last / entropy, history["macro_f1"].max())
            print(ROW.format(name, *(f"{score:.4g}" for score in scores)), flush=True)
            (runs / name / "model.safetensors").unlink()  # half a gigabyte each


def train(name: str, data: pathlib.Path, runs: pathlib.Path, flags: list[str]) -> None:
    own = {"name": name, "sm_channel_train": data / "train", "sm_model_dir": runs}
    own |= {"weights": "none", "size": SIZE, "epochs": EPOCHS}
    words = [word for key, value in own.items() for word in (f"--{key}", str(value))]
    subprocess.run([sys.executable, ROOT / "train.py", *words, *flags], check=True, stdout=subprocess.DEVNULL)


def share_entropy(images: pathlib.Path) -> float:
    """The entropy of the class shares, in nats."""
    counts = np.bincount(dataset.labels(dataset.read_faces(images)[0]))
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


if __name__ == "__main__":
    main(sys.argv[1:])
