"""Runs train.py or inference.py as people do, and tells where the seconds went and what GPU memory it took.

python benchmarks/timed.py train.py [its flags]

The last line is JSON: seconds in all, seconds of each part, and the GPU's peak memory. A part may contain another.
"""

import functools
import importlib
import json
import pathlib
import sys
import time

BEGAN = time.perf_counter()
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PARTS = {  # module, and in it the function or method
    "decoding, waited for": ("toolkit.data.store", "Store.wait"),
    "model": ("train", "build_model"),
    "pixels to the GPU": ("toolkit.data.loader", "Loader.move_to_gpu"),
    "steps": ("toolkit.training.loop", "train_one_epoch"),
    "validation": ("toolkit.training.loop", "evaluate"),
    "states and files after epochs": ("toolkit.training.checkpointer", "Checkpointer.end_epoch"),
    "report": ("toolkit.pages.report", "write"),
    "prediction": ("toolkit.serving.ensemble", "Ensemble.predict"),
    "output.csv": ("inference", "write"),
}


def main(script: str, argv: list[str]) -> None:
    seconds = {}
    for part, (module, name) in PARTS.items():
        owner = importlib.import_module(module)
        *outer, name = name.split(".")
        owner = getattr(owner, outer[0]) if outer else owner
        setattr(owner, name, timed(part, getattr(owner, name), seconds))
    began = time.perf_counter()
    importlib.import_module(script.removesuffix(".py")).main(argv)
    ended = time.perf_counter()
    import torch

    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_initialized() else None
    of_parts = {"imports": began - BEGAN, **seconds, "in all": ended - BEGAN}
    rounded = {part: round(value, 2) for part, value in of_parts.items()}
    print(json.dumps({"of which": rounded, "peak_gib": peak and round(peak, 2)}))


def timed(part: str, function, seconds: dict[str, float]):
    @functools.wraps(function)
    def inner(*args, **options):
        began = time.perf_counter()
        try:
            return function(*args, **options)
        finally:
            seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - began

    return inner


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
