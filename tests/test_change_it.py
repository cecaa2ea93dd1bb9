"""Every row of "Change it" in the README, done as a user would do it: in a copy of the repository."""

import pathlib
import shutil
import subprocess

import pandas as pd
import pytest
import zygote
from conftest import ROOT, environment, refused, succeeded

from toolkit.data import checks
from toolkit.labels import ATTRIBUTES
from toolkit.system.console import InputError

# {file: [(what stands there, what is put before it or, with None, in its place)]}
CHANGES = {
    "model.py": [
        (
            "OWN: dict[str, Callable[..., nn.Module]] = {}\n",
            """def mine(outputs, pretrained):
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 8, 5, stride=3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    net.append(nn.Linear(128, outputs))
    if pretrained:
        nn.init.constant_(net[0].weight, 0.01)
    return net


OWN = {"mine": mine}
""",
        )
    ],
    "toolkit/labels.py": [
        (
            '    "age": ("under_30", "30_to_59", "60_and_over"),\n',
            '    "age": ("under_30", "30_to_59", "60_and_over"),\n'
            '    "mood": ("calm", "glad", "sad", "cross", "tired"),\n'
            '    "glasses": ("without", "with"),\n',
        )
    ],
    "dataset.py": [
        (
            "def read_faces(folder",
            '''def read_faces(folder):
    """All photographs in one folder, named <folder of the contest>-<photograph>.<extension>; people in train.csv."""
    import pandas as pd

    people = pd.read_csv(image_folder(folder).parent / "train.csv", dtype=str).set_index("path")
    rows = []
    for file in sorted(os.listdir(image_folder(folder))):
        path, _, photograph = os.path.splitext(file)[0].rpartition("-")
        years = int(people["age"][path])
        rows.append(
            {
                "folder": ".", "file": file, "person": people["id"][path], "photograph": photograph,
                "mask": MASK_OF_PHOTOGRAPH[photograph], "gender": ATTRIBUTES["gender"].index(people["gender"][path]),
                "age": age_band(years), "mood": int(people["id"][path]) % 5, "glasses": len(rows) % 2,
            }
        )
    return pd.DataFrame(rows), []


def read_faces_of_the_contest(folder''',
        )
    ],
    "loss.py": [
        (
            "LOSSES = {\n",
            """def sharp(logits, labels, weight=None, *, sharpness):
    return cross_entropy(logits * sharpness, labels, weight)


LOSSES = {
    "sharp": sharp,
""",
        ),
        ('TAKES_SOFT_TARGETS = (', 'TAKES_SOFT_TARGETS = ("sharp", '),
        ("    options = {\n", '    options = {\n        "sharp": {"sharpness": config.sharpness},\n'),
    ],
    "toolkit/data/augment.py": [("POLICIES = {\n", 'POLICIES = {\n    "wild": Policy(flip=0.5, erase=1.0),\n')],
    "toolkit/training/optimizer.py": [("OPTIMIZERS = {\n", 'OPTIMIZERS = {\n    "nadam": torch.optim.NAdam,\n')],
    "toolkit/config/defaults.py": [
        ("OPTIMIZER_DEFAULTS = {\n", 'OPTIMIZER_DEFAULTS = {\n    "nadam": {"lr": 1e-3, "weight_decay": 0.0},\n')
    ],
    "toolkit/config/settings.py": [
        ('augment: Literal["none", ', 'augment: Literal["none", "wild", '),
        ('optimizer: Literal["adamw", ', 'optimizer: Literal["adamw", "nadam", '),
        (
            '    loss: str | None = None\n',
            '    sharpness: float = Field(1.0, gt=0)\n    """Factor of the logits in the loss sharp."""\n'
            '    loss: str | None = None\n',
        ),
    ],
}  # fmt: skip
CHECK = """
import torch
from toolkit.config.settings import InferenceSettings
from toolkit.labels import CLASS_NAMES, CLASSES, to_class
from toolkit.training.targets import make_targets

assert CLASSES == 180 and CLASS_NAMES[InferenceSettings().fallback_class] == "worn female 30_to_59 calm without"
targets = make_targets(torch.tensor([to_class(0, 1, 1, 3, 1)]), torch.tensor([59.0]), soften=True)
assert targets[0].nonzero()[:, 0].tolist() == [to_class(0, 1, 1, 3, 1), to_class(0, 1, 2, 3, 1)]
"""


@pytest.fixture(scope="module")
def changed(drawn, tmp_path_factory):
    """A changed copy of the repository; a function that runs one of its scripts there."""
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(ROOT / "toolkit", folder / "toolkit", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    shutil.copy(ROOT / "outliers.csv", folder)
    for name, changes in CHANGES.items():
        text = (folder / name).read_text()
        for before, after in changes:
            assert text.count(before) == 1, (name, before)
            text = text.replace(before, after)
        (folder / name).write_text(text)
    (folder / "check.py").write_text(CHECK)
    (folder / "flat" / "images").mkdir(parents=True)
    for path in drawn.train.glob("*/*"):
        shutil.copy(path, folder / "flat" / "images" / f"{path.parent.name}-{path.name}")
    shutil.copy(drawn.train.parent / "train.csv", folder / "flat")

    def run(script: str, **variables) -> subprocess.CompletedProcess:
        variables = {"SM_CHANNEL_TRAIN": "flat", "SM_MODEL_DIR": "runs", "DEVICE": "cpu", **variables}
        command = [zygote.python(), folder / script]
        return subprocess.run(command, cwd=folder, env=environment(**variables), capture_output=True, text=True)

    return folder, run


def test_each_thing_that_the_readme_says_can_be_changed_works_from_training_to_a_submission(changed, drawn):
    folder, run = changed
    succeeded(run("check.py"))
    own = {"NAME": "mine", "SIZE": "32x32", "EPOCHS": "1", "LOSS": "sharp", "SHARPNESS": "2"}
    own |= {"AUGMENT": "wild", "OPTIMIZER": "nadam", "BORDER_AGES": "soften", "FOLDS": "2", "REPORT_PHOTOS": "false"}
    succeeded(run("train.py", **own), "pretrained: those of mine")
    assert "180 classes" in (folder / "runs" / "mine" / "report.html").read_text()
    done = run("train.py", HEAD="factored")
    refused(done, "HEAD=factored: predicts mask, gender, age, found mask, gender, age, mood")
    out = {"SM_OUTPUT_DATA_DIR": "out", "SM_CHANNEL_MODEL": "runs"}
    done = run("inference.py", SM_CHANNEL_EVAL=drawn.eval, ON_BAD_IMAGE="fallback", FALLBACK_CLASS="179", **out)
    succeeded(done)
    assert len(pd.read_csv(folder / "out" / "output.csv")) == 42
    done = run("suspects.py", NAME="mine", SM_CHANNEL_MODEL="runs", SM_OUTPUT_DATA_DIR="out")
    succeeded(done, "note: glasses differs between photographs of a person")
    table = pd.read_csv(folder / "out" / "suspects.csv", dtype={"folder": str})
    people = pd.read_csv(folder / "flat" / "train.csv", dtype=str)
    assert sorted(table["folder"]) == sorted(people["id"]) and table["mood_probability"].between(0, 1).all()
    succeeded(run("dataset.py", SM_OUTPUT_DATA_DIR="out"))
    assert "168 photographs" in (folder / "out" / "dataset.html").read_text()


ROWS = {
    "folder": ["a", "b"], "file": ["mask1.jpg", "normal.jpg"], "person": ["1", "2"], "photograph": ["mask1", "normal"],
    "mask": [0, 2], "gender": [0, 1], "age": [0, 1], "years": [20, 40],
}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"mask": None, "years": None}, "expected the columns folder, .*; missing mask"),
        (
            {"gender": ["male", "female"]},
            "expected in gender numbers as in toolkit/labels.py, {0: 'male', 1: 'female'}; found 2",
        ),
        ({"age": [0, 3]}, "found 1 of 2 rows that are not so: normal.jpg has 3"),
        ({"person": ["1", None]}, "expected in person a text in every row; found 1 of 2 rows"),
        ({"folder": ["a", "a"], "file": ["x.jpg", "x.jpg"]}, "expected in file every photograph once; found 1 of 2"),
        (
            {"folder": ["images/a", "images/b"]},
            "expected photographs at folder/file in .*, found none at images/a/mask1.jpg",
        ),
        ({name: [] for name in ROWS}, "expected a row for each photograph, found none"),
        ({"years": ["20 years", "40"]}, "expected in years numbers, or nothing where it is unknown; found 1 of 2"),
        ({"years": [20, 60]}, "expected in age the band of the column years, from .30, 60. on; found 1 of 2 rows"),
        ({"file": ["/a/mask1.jpg", "/b/normal.jpg"]}, "expected in file paths below .*; found 2 of 2 rows"),
    ],
)
def test_a_table_of_ones_own_that_is_none_is_refused_in_one_line(tmp_path, wrong, expected):
    for folder, file in zip(ROWS["folder"], ROWS["file"], strict=True):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).touch()
    columns = {name: values for name, values in {**ROWS, **wrong}.items() if values is not None}
    with pytest.raises(InputError, match=f"^read_faces in dataset.py: .*{expected}"):
        checks.checked((pd.DataFrame(columns), []), tmp_path)
    with pytest.raises(InputError, match="expected a table and a list of names passed over, found DataFrame"):
        checks.checked(pd.DataFrame(ROWS), tmp_path)
    table, _ = checks.checked((pd.DataFrame(ROWS).drop(columns="years"), []), tmp_path)
    assert table["years"].isna().all() and table["person"].tolist() == ["1", "2"]


def test_somebody_of_two_ages_in_a_shared_folder_has_two_sets_of_labels(tmp_path):
    rows = {"folder": ".", "file": ["a.jpg", "b.jpg", "c.jpg"], "person": ["1", "1", "2"], "photograph": "normal"}
    rows |= {"mask": 2, "gender": 1, "age": 0, "years": [19, 20, 20], **{name: 0 for name in list(ATTRIBUTES)[3:]}}
    (tmp_path / "a.jpg").touch()
    table, _ = checks.checked((pd.DataFrame(rows), []), pathlib.Path(tmp_path))
    assert table["folder"].tolist() == ["1_1_0_19.0", "1_1_0_20.0", "2"] and table["file"].tolist()[0] == "./a.jpg"


def test_photographs_that_have_other_names_lack_none_of_those_of_the_contest():
    table = pd.DataFrame({"folder": ["a", "a", "b"], "photograph": ["front", "left", "front"]})
    assert checks._missing(table, ("mask1", "normal")) == []
    assert checks._missing(table.replace("left", "normal"), ("mask1", "normal")) == ["a (mask1)", "b (mask1, normal)"]
