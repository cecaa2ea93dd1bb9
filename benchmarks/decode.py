"""Photographs per second into the store, against Pillow's open and resize in one thread, and how far the pixels differ.

python benchmarks/decode.py [--size 224x168] [--turns 5] [--people 60]

The photographs are JPEGs of 384 x 512. Measured in turns, medians over them; `difference` is the mean absolute one, in
units of 255, from the pixels of a full decode with Pillow's own bilinear resize. simplejpeg and torchcodec take part
where they are installed. Last, what the main thread waits for beside decoding, by the number of threads that decode.
"""

import pathlib
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import common
import numpy as np
import photographs
import PIL
import torch
from PIL import Image

from toolkit.config.types import height_and_width
from toolkit.data import decode, photo_file
from toolkit.data.framing import Framing
from toolkit.data.store import Store, cpu_count

THREADS = (2, 3, 4, 8, 16)
BESIDE = 16_000  # photographs that are decoded meanwhile
IMPORT_AND_MODEL = """
import sys, time, torch
from toolkit.data.framing import Framing
from toolkit.data.store import Store
threads, height, width = map(int, sys.argv[1:])
Store._useful_threads = lambda store: threads
store = Store(sys.stdin.read().split("\\n"), Framing((height, width)))
began = time.perf_counter()
store.start()
import model, torchvision
model.build("resnet18", (height, width))
print(time.perf_counter() - began, file=sys.stderr)
store.wait()
print(time.perf_counter() - began, file=sys.stderr)
"""


def resized(pixels: np.ndarray, size) -> np.ndarray:
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    if planes.shape[2:] != size:
        planes = torch.nn.functional.interpolate(planes, size=size, mode="bilinear", antialias=True)
    return np.stack(tuple(planes[0].numpy()), axis=-1)


def pillow(path: str, size) -> np.ndarray:
    with Image.open(path) as photo:
        return np.asarray(photo.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))


def pillow_draft(path: str, size) -> np.ndarray:
    with Image.open(path) as photo:
        photo.draft(None, size[::-1])
        return np.asarray(photo.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))


def pillow_then_torch(path: str, size) -> np.ndarray:
    with Image.open(path) as photo:
        return resized(np.array(photo.convert("RGB")), size)


def ours(path: str, size) -> np.ndarray:
    return decode.decode_bytes(photo_file.read(path), Framing(size))


def others() -> dict:
    """What is installed beside Pillow."""
    ways = {}
    try:
        import simplejpeg

        def scaled(path: str, size) -> np.ndarray:
            content = pathlib.Path(path).read_bytes()
            return resized(simplejpeg.decode_jpeg(content, "RGB", min_height=size[0], min_width=size[1]), size)

        ways["simplejpeg, scaled, torch's resize"] = scaled
    except ImportError:
        pass
    try:
        from torchcodec.decoders import decode_image

        def full(path: str, size) -> np.ndarray:
            return resized(decode_image(path).permute(1, 2, 0).numpy(), size)

        ways["torchcodec, full, torch's resize"] = full
    except (ImportError, RuntimeError, OSError):
        pass
    return ways


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--size", default="224x168", type=height_and_width)
    parser.add_argument("--turns", default=5, type=int)
    parser.add_argument("--people", default=60, type=int, help="people to draw, with 7 photographs each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        paths = sorted(str(path) for path in photographs.make(pathlib.Path(scratch), options.people).glob("*/*.jpg"))
        compare(paths, options.size, options.turns)
        beside(paths, options.size, options.turns)


def beside(paths: list[str], size, turns: int) -> None:
    """Seconds to import torchvision and make a model while photographs are decoded, and until all are, in turns."""
    many = "\n".join(paths * -(-BESIDE // len(paths)))

    def import_and_model(threads: int) -> list[float]:
        done = common.run_code(IMPORT_AND_MODEL, threads, *size, stdin=many)
        return [float(word) for word in done.stderr.split()]

    seconds = common.in_turns({threads: partial(import_and_model, threads) for threads in THREADS}, turns)
    print(f"\n{'threads':>7}  import and model, seconds  all decoded, seconds")
    for threads, found in seconds.items():
        cells = (f"{common.as_text(each):>24}" for each in zip(*found, strict=True))
        print(f"{threads:7} {' '.join(cells)}")


def compare(paths: list[str], size, turns: int) -> None:
    ways = {
        "Pillow, full, its resize": pillow,
        "Pillow, full, torch's resize": pillow_then_torch,
        "Pillow, draft, its resize": pillow_draft,
        "ours: data/decode.py": ours,
        **others(),
    }
    full = [pillow(path, size).astype(int) for path in paths]

    def by_threads(way, threads: int) -> float:
        with ThreadPoolExecutor(threads) as pool:
            return len(paths) / common.seconds(lambda: list(pool.map(way, paths, [size] * len(paths))))

    def by_store() -> float:
        store = Store(paths, Framing(size))
        began = time.perf_counter()
        assert not store.fill()
        return len(paths) / (time.perf_counter() - began)

    measures = {
        (name, threads): partial(by_threads, way, threads) for name, way in ways.items() for threads in (1, cpu_count())
    }
    everything = common.in_turns({**measures, ("ours: the store", cpu_count()): by_store}, turns)
    base = statistics.median(everything["Pillow, full, its resize", 1])
    versions = f"Pillow {PIL.__version__}, torch {torch.__version__}"
    print(f"{len(paths)} photographs to {size[0]}x{size[1]}, {turns} turns, {versions}")
    print(f"{'way':36} {'threads':>7} {'per second':>10} {'low':>7} {'high':>7} {'ratio':>6} {'difference':>10}")
    for (name, threads), rates in everything.items():
        way, (median, low, high) = ways.get(name, ours), common.summary(rates)
        difference = np.mean(
            [np.abs(way(p, size) - pixels).mean() for p, pixels in zip(paths[:100], full, strict=False)]
        )
        numbers = f"{median:10.0f} {low:7.0f} {high:7.0f} {median / base:6.2f} {difference:10.2f}"
        print(f"{name:36} {threads:7} {numbers}")


if __name__ == "__main__":
    main()
