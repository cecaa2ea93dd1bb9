"""docs/settings.md, written from the settings classes themselves: `make docs`."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from toolkit.config import defaults, presets, sources  # noqa: E402
from toolkit.config.settings import SCRIPTS  # noqa: E402

PAGE = ROOT / "docs" / "settings.md"
HEAD = """\
# Settings

This page lists every setting of every script. It is generated: change the settings classes, then run `make docs`.
`python train.py --help` prints the table of one script. The settings that people change most are in the
[README](../README.md#main-settings).

## How to give a setting

| way | example | notes |
|--|--|--|
| flag | `python train.py --batch-size 64` | `--batch_size 64`, `--batch-size 64` and `--batch-size=64` are the same |
| environment variable | `epochs=10 python train.py` | any case: `EPOCHS` or `epochs` |
| SageMaker hyperparameter | `SM_HP_BATCH_SIZE`, `SM_HPS` | see [SageMaker](sagemaker.md) |
| settings of a run | `SETTINGS=runs/resnet18/settings.json python train.py` | the same again; no folders, no `RUN` |
| recipe | `RECIPE=best python train.py` | the lines of a file in `recipes/`: see [recipes](#recipes) |

- **Precedence:** each way wins over those below it in this table, and all of them over the default.
- **Empty values** count as unset, and so does `null`: `LR=` gives the default of LR.
- **Files of variables** (`docker --env-file`) are read by no shell. So blanks around a value, a line end of Windows and
  a pair of quotes are removed, and `~` at the start of a path is the home folder. Words may have any letter case.
- **Errors:** all settings are checked together before any work. Every wrong one gets a line that says what was
  expected, and the script ends with exit status 2. A setting that has no effect beside the others is an error too.
- **Near misses:** an environment variable that is almost a setting (`EPOCHES`) gives a warning with the right name.
- **Folders:** set all folders of a script, or none. With none, it works on the drawn faces in `demo/`, and says so in
  its first line. Some scripts then have other defaults, named above their table.
- **Record:** train.py prints every value with its source, and `settings.json` in the run folder keeps them.
"""

RECIPES = """\
## Recipes

A recipe is a file in `recipes/` with lines NAME=value for train.py and inference.py: settings that were measured
together. Give it to both scripts. Its values are defaults: whatever you set wins. Add your own by adding a file.

    SM_CHANNEL_TRAIN=/data/train/images SM_MODEL_DIR=runs RECIPE=best python train.py
    SM_CHANNEL_EVAL=/data/eval SM_CHANNEL_MODEL=runs SM_OUTPUT_DATA_DIR=out RECIPE=best python inference.py

"""


def text() -> str:
    """The whole page: how settings are given, the recipes, then a heading and a table for each script."""
    return "\n".join([HEAD, recipes(), *map(section, SCRIPTS)])


def recipes() -> str:
    """The table of the files in recipes/, from the comments at their heads."""
    lines = []
    for name in presets.recipes():
        what, _, rest = (presets.FOLDER / f"{name}.env").read_text().partition("\n")
        measured = dict(re.findall(r"^# ([\w ]+): (.+)$", rest, re.M))
        lines = lines or [f"| `RECIPE` | what | {' | '.join(measured)} |", f"|--|--|{'--|' * len(measured)}"]
        cells = [f"[{name}](../recipes/{name}.env)", what.removeprefix("# "), *measured.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return RECIPES + "\n".join(lines) + "\n"


def section(script: str) -> str:
    """The heading and the table of one script, and its defaults on drawn faces where they are others."""
    cls = SCRIPTS[script]
    demo = " ".join(f"{name.upper()}={sources.as_text(value)}" for name, value in cls.DEMO_DEFAULTS.items())
    note = f"Defaults with no folder set: `{demo}`.\n\n" if demo else ""
    is_train = script == "train.py"
    table = sources.markdown_table(cls, train.CHOICES if is_train else None)
    return f"## {script}\n\n{note}{table}\n{start_defaults() + optimizer_defaults() if is_train else ''}"


def start_defaults() -> str:
    """The table of what depends on the weights to start from and on the number of epochs."""
    columns = defaults.AGAINST_OVERFITTING, defaults.PLAIN
    lines = [f"| unset | trained weights and `EPOCHS` of {defaults.ENOUGH_EPOCHS} or more | else |", "|--|--|--|"]
    for name in columns[0]:
        values = " | ".join(f"`{sources.as_text(column[name])}`" for column in columns)
        lines.append(f"| `{name.upper()}` | {values} |")
    others = " and ".join(f"`{name.upper()}={value}`" for name, value in defaults.WITH_OWN_LOSS.items())
    return (
        "\n"
        + "\n".join(lines)
        + f"\n\nWhere you set `LOSS`, `SMOOTHING` or `CLASS_WEIGHTS`, the defaults are {others}. "
        "If `WEIGHTS`\nis a run, `HEAD` is that run's.\n"
    )


def optimizer_defaults() -> str:
    """The table of LR and WEIGHT_DECAY where they are unset."""
    backbones = {"other backbones": "resnet18", "vgg, alexnet": "vgg16"}
    rows = [(backbone, backbone, True) for backbone in defaults.PRETRAINED_FACTORS_OF]
    rows += [(name, backbone, pretrained) for pretrained in (True, False) for name, backbone in backbones.items()]
    starts = {True: "trained weights", False: "`WEIGHTS=none`"}
    lines = [f"| unset: `LR`, `WEIGHT_DECAY` | {' | '.join(f'`{name}`' for name in defaults.OPTIMIZER_DEFAULTS)} |"]
    lines.append(f"|--|{'--|' * len(defaults.OPTIMIZER_DEFAULTS)}")
    for name, backbone, pretrained in rows:
        of = [defaults.optimizer_defaults(optimizer, backbone, pretrained) for optimizer in defaults.OPTIMIZER_DEFAULTS]
        cells = [f"{one['lr']:g}, {one['weight_decay']:g}" for one in of]
        lines.append(f"| {name}, {starts[pretrained]} | {' | '.join(cells)} |")
    return "\nWhere they are unset, `LR` and `WEIGHT_DECAY` depend on `OPTIMIZER`:\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text())
