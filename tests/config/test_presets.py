"""Settings from files: recipes, and the settings.json of a run."""

import json
import re

import pytest
import tiny
from conftest import ROOT
from faults import Forked

import inference
from toolkit.config import defaults, presets, sources
from toolkit.config.settings import InferenceSettings, LeaderboardSettings, TrainSettings
from toolkit.system.console import InputError

pytestmark = pytest.mark.usefixtures("nothing_set")
HEADER = ("macro F1", "data", "minutes", "machine", "date", "commit")


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Write a recipe of this name."""
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    return lambda name, text: (tmp_path / f"{name}.env").write_text(text)


@pytest.fixture
def read(monkeypatch):
    """The settings of a script and their sources, with these flags and only these variables."""

    def read(*argv, cls=TrainSettings, **variables):
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, str(value))
            return sources.read(cls, list(argv))

    return read


def test_a_flag_wins_over_the_environment_over_a_hyperparameter_over_settings_over_a_recipe(recipe, read, tmp_path):
    recipe("mine", "# mine\nEPOCHS=1\n\n seed = 1\nBATCH_SIZE=2\nPATIENCE=3\nSIZE=64x48\nLR=0.1\nEMA=\nTTA=true\n")
    record = {"settings": {"epochs": 2, "seed": 2, "batch_size": 4, "patience": 4, "size": [32, 64]}}
    (tmp_path / "settings.json").write_text(json.dumps(record | {"origin": dict.fromkeys(record["settings"], "flag")}))
    settings, origin = read(
        "--epochs", "5", EPOCHS=4, SM_HP_EPOCHS=3, SEED=4, SM_HP_SEED=3, SM_HPS='{"batch_size": 8, "recipe": "mine"}',
        SETTINGS=tmp_path / "settings.json",
    )  # fmt: skip
    names = ("epochs", "seed", "batch_size", "patience", "size", "lr", "ema")
    assert [getattr(settings, name) for name in names] == [5, 4, 8, 4, (32, 64), 0.1, None]
    sources_of = ["flag", "environment", "hyperparameter", "settings.json", "settings.json", "recipe mine", "default"]
    assert [origin[name] for name in names] == sources_of
    assert re.search(r"^  lr +0\.1 +recipe mine$", "\n".join(sources.describe(settings, origin)), re.M)


def test_each_script_takes_its_own_of_a_recipe(recipe, read):
    recipe("mine", "NAME=vgg11\nBATCH_SIZE=7\nTTA=true\nDEVICE=cpu\n")
    settings, _ = read(RECIPE="mine", cls=InferenceSettings)
    assert (settings.tta, settings.name, settings.batch_size, settings.device) == (True, None, None, "auto")
    settings, _ = read(RECIPE="mine", cls=LeaderboardSettings)
    assert (settings.batch_size, settings.device) == (7, "cpu")


def test_a_value_of_a_recipe_without_effect_beside_what_is_given_is_no_mistake(recipe, read):
    recipe("mine", "LOSS=focal\nGAMMA=3\n")
    assert read(RECIPE="mine")[0].gamma == 3
    assert read(RECIPE="mine", LOSS="f1")[0].loss == "f1"
    recipe("mine", "WEIGHTS=imagenet\n")
    assert read(RECIPE="mine", PRETRAINED="false")[0].weights == "none"
    recipe("mine", "FOLDS=5\nFINAL=true\n")

    def resolved(**given):
        return defaults.resolve(*read(RECIPE="mine", **given))[0]

    assert resolved().final and not resolved(FOLDS=0).final and not resolved(FOLD=2).final
    recipe("mine", "FOLDS=5\nFOLD=3\nPATIENCE=3\n")
    assert resolved(FOLDS=0, VAL_RATIO=0, DECIDE_BY="x").patience == 0 and resolved(FOLDS=0).fold is None
    assert resolved(WEIGHTS="none").fold == 3
    recipe("mine", "LOSS=focal\nGAMMA=3\n")
    with pytest.raises(InputError, match="GAMMA: has no effect with LOSS=f1"):
        read(RECIPE="mine", LOSS="f1", GAMMA=2)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"RECIPE": "missing"}, "RECIPE=missing: expected mine, or the name of your own file in "),
        ({"RECIPE": "../mine"}, "RECIPE=../mine: expected mine"),
        ({"RECIPE": "mine"}, "mine.env line 2: expected NAME=value of train.py or inference.py, found EPOCS=3"),
        ({"SETTINGS": "missing.json"}, "SETTINGS=missing.json: expected the settings.json of a run, found: No such"),
        ({"SETTINGS": "."}, "SETTINGS=.: expected the settings.json of a run, found: Is a directory"),
        ({"SETTINGS": ROOT / "README.md"}, "expected the settings.json of a run, found: something else"),
        ({"SETTINGS": "{folder}/list.json"}, "expected the settings.json of a run, found: something else"),
        ({"SETTINGS": "{folder}/old.json"}, "was written by another version; LOSSES=focal: there is no such setting"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(recipe, read, tmp_path, given, expected):
    recipe("mine", "EPOCHS=3\nEPOCS=3\n")
    (tmp_path / "list.json").write_text('{"settings": [], "origin": {}}')
    old = {"settings": {"losses": "focal", "gone": 1}, "origin": {"losses": "flag", "gone": "default"}}
    (tmp_path / "old.json").write_text(json.dumps(old))
    with pytest.raises(InputError) as error:
        read(**{name: str(value).format(folder=tmp_path) for name, value in given.items()})
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_settings_of_a_run_are_those_that_were_given_and_the_rest_follows_anew(read, tmp_path):
    """What followed from other settings is derived again; a default that has changed since keeps the run's value."""
    before, origin = defaults.resolve(*read(SIZE="64x48", OPTIMIZER="sgd", DEVICE="cpu", RUN="mine", EPOCHS=3))
    record = {"settings": before.model_dump(mode="json") | {"warmup": 0.3}, "origin": origin}
    (tmp_path / "settings.json").write_text(json.dumps(record))
    again, _ = defaults.resolve(*read(SETTINGS=tmp_path / "settings.json"))
    assert again.deciding() == before.deciding() | {"warmup": 0.3}
    assert (again.device, again.run) == ("auto", "resnet18")
    of_final = (
        before.model_copy(update={"epochs": 5, "head": "factored", "loss": "factored"}),
        origin | {"epochs": "flag"},
    )
    record = {"settings": of_final[0].model_dump(mode="json"), "origin": defaults.origin_in_folds(of_final[1])}
    (tmp_path / "final.json").write_text(json.dumps(record))
    assert defaults.resolve(*read(SETTINGS=tmp_path / "final.json"))[0].head == "factored"
    other, origin = defaults.resolve(*read(SETTINGS=tmp_path / "settings.json", OPTIMIZER="adamw", HEAD="factored"))
    assert (other.lr, other.class_weights, other.size) == (1e-3, "none", (64, 48))
    assert (origin["lr"], origin["class_weights"], origin["size"]) == ("adamw", "auto", "settings.json")


@pytest.mark.parametrize("name", presets.recipes())
def test_a_recipe_says_what_was_measured_and_its_settings_fit_each_other(name):
    _, _, rest = (presets.FOLDER / f"{name}.env").read_text().partition("\n")
    header = re.findall(r"^# ([\w ]+): (.+)$", rest, re.M)
    assert tuple(key for key, _ in header) == HEADER
    values = presets.read_recipe(name)
    for cls in (TrainSettings, InferenceSettings):
        cls(
            **{
                key: value
                for key, value in values.items()
                if (key in TrainSettings.model_fields) == (cls is TrainSettings)
            }
        )


@pytest.mark.parametrize("name", presets.recipes())
def test_a_recipe_trains_and_answers(drawn, tmp_path, name):
    """On a few small faces, with a tiny net: all else is the recipe's."""
    small = {"NAME": "tiny", "PRETRAINED": "false", "SIZE": "32x32", "EPOCHS": "1", "DEVICE": "cpu"}
    folds = {"FOLDS": "2"} if "folds" in presets.read_recipe(name) else {}
    given = {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": tmp_path / "runs", "LOSSES": tmp_path / "losses"}
    given |= {
        "SM_CHANNEL_EVAL": drawn.eval,
        "SM_CHANNEL_MODEL": tmp_path / "runs",
        "SM_OUTPUT_DATA_DIR": tmp_path / "out",
    }

    def train_and_answer(argv: list[str]) -> None:
        tiny.main(argv)
        inference.main(argv)

    process = Forked(train_and_answer, tmp_path / "log", RECIPE=name, **given, **small, **folds)
    assert process.wait(120) == 0, (tmp_path / "log").read_text()
    assert len((tmp_path / "out" / "output.csv").read_text().splitlines()) == 43
    answered = json.loads((tmp_path / "out" / "inference.json").read_text())["settings"]
    assert str(answered["tta"]).lower() == presets.read_recipe(name).get("tta", "false")
