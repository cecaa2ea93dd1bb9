"""docs/settings.md, written from the settings classes themselves: `make docs`."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import train  # noqa: E402
from toolkit.config import defaults, sources  # noqa: E402
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
| environment variable | `epochs=10 python train.py` | any case: `EPOCHS` or `epochs` |
| flag | `python train.py --batch-size 64` | `--batch_size 64`, `--batch-size 64` and `--batch-size=64` are the same |
| SageMaker hyperparameter | `SM_HP_BATCH_SIZE`, `SM_HPS` | see [SageMaker](sagemaker.md) |

- **Precedence:** a flag wins over an environment variable, the variable over a hyperparameter, that over the default.
- **Empty values** count as unset, and so does `null`: `LR=` gives the default of LR.
- **Blanks:** write `epochs=10` without blanks around `=`: after a blank, the shell would run a command named `10`.
- **Errors:** all settings are checked together before any work. Every wrong one gets a line that says what was
  expected, and the script ends with exit status 2. A setting that has no effect in this run is an error too.
- **Near misses:** an environment variable that is almost a setting (`EPOCHES`) gives a warning with the right name.
- **Folders:** set all folders of a script, or none. With none, it works on the drawn faces in `demo/`, and says so in
  its first line. Some scripts then have other defaults, named above their table.
- **Record:** train.py prints every value with its source, and `settings.json` in the run folder keeps them.
"""


def text() -> str:
    """The whole page: how settings are given, then a heading and a table for each script."""
    return "\n".join([HEAD, *map(section, SCRIPTS)])


def section(script: str) -> str:
    """The heading and the table of one script, and its defaults on drawn faces where they are others."""
    cls = SCRIPTS[script]
    demo = " ".join(f"{name.upper()}={sources.as_text(value)}" for name, value in cls.DEMO_DEFAULTS.items())
    note = f"Defaults with no folder set: `{demo}`.\n\n" if demo else ""
    is_train = script == "train.py"
    table = sources.markdown_table(cls, train.CHOICES if is_train else None)
    return f"## {script}\n\n{note}{table}\n{optimizer_defaults() if is_train else ''}"


def optimizer_defaults() -> str:
    """The table of LR and WEIGHT_DECAY where they are unset."""
    backbones = {"other backbones": "resnet18", "vgg, alexnet": "vgg16"}
    columns = [(name, backbone, pretrained) for pretrained in (True, False) for name, backbone in backbones.items()]
    starts = {True: "trained weights", False: "`WEIGHTS=none`"}
    heads = [f"`LR`, {name}, {starts[pretrained]}" for name, _, pretrained in columns]
    lines = [f"| `OPTIMIZER` | {' | '.join(heads)} | `WEIGHT_DECAY` |", f"|--|{'--|' * len(heads)}--|"]
    for optimizer in defaults.OF_OPTIMIZER:
        of = [defaults.of_optimizer(optimizer, backbone, pretrained) for _, backbone, pretrained in columns]
        cells = [f"{one['lr']:g}" for one in of] + [f"{of[0]['weight_decay']:g}"]
        lines.append(f"| `{optimizer}` | {' | '.join(cells)} |")
    return "\nUnset, `LR` and `WEIGHT_DECAY` are these:\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text())
