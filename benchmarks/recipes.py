"""What does each part of the recipe gain? One change at a time, on drawn faces made hard (benchmarks/hard_faces.py).

python benchmarks/recipes.py [--folder recipes] [--seeds 1,2,3] [--only TTA=true ...] [--epochs 6] [--size 64x48]

Every line is the defaults with one change, trained from scratch by train.py, answered by inference.py and scored by
evaluation.py on three sets of other people: in the shares of training, in equal shares, with 60 % male and 25 % old.
Printed are the mean macro F1 over the seeds with the lowest and highest, and the difference to the defaults with the
same seeds. What was measured stays in the folder, and is not measured again: take another one for other code.
"""

import argparse
import json
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import hard_faces  # noqa: E402
import scripts  # noqa: E402

PEOPLE, EVAL_PEOPLE = 600, 400
DEFAULTS = "the defaults"
OF_INFERENCE = ("TTA", "ADAPT_PRIORS")
RECIPES = (
    DEFAULTS,
    "ADAPT_PRIORS=false",
    "TTA=true",
    "LOGIT_ADJUSTMENT=0",
    "LOGIT_ADJUSTMENT=0 ADAPT_PRIORS=false",
    "HEAD=factored",
    "BATCH_SIZE=64",
    "LOSS=cross_entropy",
    "MIX=mixup",
    "MIX=cutmix",
    "AUGMENT=flip",
    "AUGMENT=strong",
    "SAMPLER=balanced",
    "LOSS=logit_adjusted",
    "CLASS_WEIGHTS=none",
    "CLASS_WEIGHTS=none AUGMENT=flip",
    "EMA=true",
    "BORDER_AGES=soften",
    "LR=2e-3",
    "LR=5e-4",
    "LOSS=focal",
    "AUGMENT=none",
    "BORDER_AGES=leave_out",
)
ROW = "{:40}" + " {:>24} {:>8}" * len(hard_faces.EVALS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="recipes", type=pathlib.Path)
    parser.add_argument("--seeds", default="1,2,3", type=lambda text: text.split(","))
    parser.add_argument("--only", nargs="*", default=RECIPES)
    parser.add_argument("--epochs", default="6")
    parser.add_argument("--size", default="64x48")
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(exist_ok=True)
    hard_faces.make(folder / "faces", PEOPLE, EVAL_PEOPLE)
    shared = {"SIZE": options.size, "EPOCHS": options.epochs, "PRETRAINED": "false", "CACHE_DIR": folder / "cache"}
    print(
        f"{PEOPLE} people, resnet18 from scratch at {options.size}, {options.epochs} epochs, n = {len(options.seeds)}"
    )
    print(ROW.format("macro F1", *(word for name in hard_faces.EVALS for word in (f"{name}, mean (range)", "gain"))))
    usual = [scores(folder, DEFAULTS, shared, seed) for seed in options.seeds]
    for recipe in options.only:
        found = [scores(folder, recipe, shared, seed) for seed in options.seeds]
        cells = []
        for name in hard_faces.EVALS:
            values, before = [one[name] for one in found], [one[name] for one in usual]
            gain = statistics.mean(values) - statistics.mean(before)
            cells += [f"{statistics.mean(values):.4f} ({min(values):.4f}-{max(values):.4f})", f"{gain:+.4f}"]
        print(ROW.format(recipe, *cells), flush=True)


def scores(folder: pathlib.Path, recipe: str, shared: dict, seed: str) -> dict[str, float]:
    """Macro F1 on each set; of before, where it was measured."""
    changes = {} if recipe == DEFAULTS else dict(word.split("=") for word in recipe.split())
    training = {key: value for key, value in changes.items() if key not in OF_INFERENCE}
    infer = {key: value for key, value in changes.items() if key in OF_INFERENCE}
    of_run = "-".join([shared["SIZE"], shared["EPOCHS"], seed, *(f"{key}_{value}" for key, value in training.items())])
    run, measured = folder / "runs" / of_run, folder / f"{of_run}{'-'.join(['', *infer, *infer.values()])}.json"
    if measured.exists():
        return json.loads(measured.read_text())
    if not (run / "resnet18" / "result.json").exists():
        run.mkdir(parents=True, exist_ok=True)
        scripts.run(
            "train.py", SM_CHANNEL_TRAIN=folder / "faces" / "train", SM_MODEL_DIR=run, SEED=seed, **shared, **training
        )
    found = {}
    for name in hard_faces.EVALS:
        data, out = folder / "faces" / name, run / name
        cache = {"CACHE_DIR": shared["CACHE_DIR"]}
        scripts.run(
            "inference.py", SM_CHANNEL_EVAL=data, SM_CHANNEL_MODEL=run, SM_OUTPUT_DATA_DIR=out, NAME="resnet18",
            **cache, **infer,
        )  # fmt: skip
        scripts.run("evaluation.py", SM_GROUND_TRUTH_DIR=data, SM_OUTPUT_DATA_DIR=out)
        found[name] = json.loads((out / "evaluation.json").read_text())["macro_f1"]
    measured.write_text(json.dumps(found))
    return found


if __name__ == "__main__":
    main()
