"""Settings from files: RECIPE names a file in recipes/, SETTINGS is the settings.json of a run.

Their values replace defaults. A flag, environment variable or hyperparameter wins over them; if it leaves one of them
without effect, that is no error. A recipe is for train.py and inference.py: a line is for inference.py if train.py has
no such setting.
"""

import json
import pathlib

from pydantic import BaseModel

from toolkit import ROOT
from toolkit.config.settings import InferenceSettings, TrainSettings
from toolkit.config.shared import Settings
from toolkit.config.types import plain, the_word
from toolkit.system import files
from toolkit.system.console import InputError

FOLDER = ROOT / "recipes"
RECIPE, RECORD = "recipe {}", "settings.json"  # where a value comes from
FOLDS_SOURCE = "folds"  # the source in a net of a run of folds: the run set it
# Sources of values that somebody gave; all other values are derived from settings, or are defaults.
GIVEN = ("flag", "environment", "hyperparameter", "drawn faces", FOLDS_SOURCE)

NOT_TAKEN = set(TrainSettings.RUNTIME_ONLY) - set(TrainSettings.IN_DIGEST)  # of a settings.json: where and how fast


def recipes() -> list[str]:
    """The names of the recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.env"))


def is_preset(origin: str) -> bool:
    """Whether a value comes from one of these files."""
    return origin == RECORD or origin.startswith(RECIPE.format(""))


def find(cls: type[Settings], given: dict) -> dict[str, dict]:
    """{source: {setting: value}} for a script, from the files that RECIPE and SETTINGS in `given` name; the last wins.

    Raises InputError where a file is missing or holds something else.
    """
    found = {}
    if "recipe" in cls.model_fields and (name := given.get("recipe")):
        is_training = issubclass(cls, TrainSettings)
        values = read_recipe(str(name)).items()
        values = {key: value for key, value in values if (key in TrainSettings.model_fields) == is_training}
        found[RECIPE.format(name)] = {key: value for key, value in values.items() if key in cls.model_fields}
    if "settings" in cls.model_fields and (path := given.get("settings")):
        found[RECORD] = read_record(pathlib.Path(str(path)).expanduser())
    return found


def read_recipe(name: str) -> dict[str, str]:
    """{setting: text} of recipes/<name>.env: lines NAME=value, blank lines, and comments that begin with #."""
    name = the_word(name, recipes())
    if name not in recipes():
        raise InputError(f"RECIPE={name}: expected {', '.join(recipes())}, or the name of your own file in {FOLDER}")
    values, path = {}, FOLDER / f"{name}.env"
    known = TrainSettings.model_fields | InferenceSettings.model_fields
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        setting, equals, value = (part.strip() for part in line.partition("="))
        if setting.startswith("#") or not line.strip():
            continue
        if not equals or setting.lower() not in known:
            raise InputError(f"{path} line {number}: expected NAME=value of train.py or inference.py, found {line}")
        values[setting.lower()] = plain(value)
    return values


class Record(BaseModel):
    """The parts of settings.json that are used."""

    settings: dict
    origin: dict[str, str]


def read_record(path: pathlib.Path) -> dict:
    """The settings that change a run's result, {setting: value}, from its settings.json.

    Left out: values that were defaults and still are, and values that were derived from other settings, since they are
    derived again now. Raises InputError if the file is no such record, or has settings that no longer exist.
    """
    try:
        record = files.read_json(path, Record)
        found = {
            name: value
            for name, value in record["settings"].items()
            if name not in NOT_TAKEN and _is_own(name, value, record["origin"][name])
        }
    except (OSError, InputError, KeyError) as error:
        reason = getattr(error, "strerror", None) or "something else"
        raise InputError(f"SETTINGS={path}: expected the settings.json of a run, found: {reason}") from None
    unknown = [f"{name.upper()}={value}" for name, value in found.items() if name not in TrainSettings.model_fields]
    if unknown:
        raise InputError(
            f"SETTINGS={path}: was written by another version; {', '.join(unknown)}: there is no such setting; "
            "remove it from a copy of the file"
        )
    return found


def _is_own(name: str, value, origin: str) -> bool:
    """Whether a value was given, or was a default that has changed since."""
    if origin == "default" and name in TrainSettings.model_fields:
        return value != json.loads(json.dumps(TrainSettings.model_fields[name].default, default=str))
    return origin in GIVEN or is_preset(origin)
