"""From environment, flags and SageMaker's hyperparameters to one settings object.

A flag wins over an environment variable, that over a hyperparameter, that over the default. Names are taken in any
case, flags with dashes or underscores; an empty value or `null` counts as unset.
"""

import difflib
import json
import os
import pathlib
import re
import sys

from pydantic import ValidationError

from toolkit.config.settings import DEMO, DEMO_DATA, SCRIPTS
from toolkit.config.types import Settings
from toolkit.system.console import InputError, say

FLAG = re.compile(r"--?(?=[A-Za-z_])")  # one dash too: SageMaker writes one-letter hyperparameters so; -1 is a value
KNOWN = {name for cls in SCRIPTS.values() for name in cls.model_fields}
LISTED = 8  # choices that are few enough to be listed in a table
FOREIGN = ("_", "sagemaker_")  # what the platform passes along with the person's own hyperparameters


def read(cls: type[Settings], argv: list[str], choices: dict | None = None) -> tuple[Settings, dict[str, str]]:
    """The settings of a script, and for each name where its value came from.

    `choices` maps the name of a setting to the names that it may hold, where only the script knows them.
    Prints warnings of near misses on stderr. Raises InputError with a line for every setting that is wrong.
    """
    if {"--help", "-h"} & set(argv):
        say(table(cls, choices))
        sys.exit(0)
    values, origin, problems = merge(cls, argv, os.environ)
    for line in near_misses(os.environ):
        print(f"warning: {line}", file=sys.stderr, flush=True)
    for name, names in (choices or {}).items():
        if name in values and values[name] not in list(names):
            problems.append(_not_among(name, values.pop(name), names, origin[name]))
    try:
        settings = cls(**values)
    except ValidationError as error:
        problems += [line for detail in error.errors() for line in _lines(detail, values)]
    if problems:
        raise InputError("\n       ".join(problems))
    if settings.demo:
        say(f"no folder is set: working on drawn faces in {DEMO.absolute()}")
    return settings, origin


def ensure_drawn_faces(settings: Settings) -> None:
    """Draw the faces that a script works on where no folder is set, unless they are there."""
    if settings.demo:
        from toolkit.demo import synthetic  # and with it pandas, which nobody else need wait for

        synthetic.ensure(DEMO_DATA)


def merge(cls: type[Settings], argv: list[str], environ) -> tuple[dict, dict[str, str], list[str]]:
    """The value of every setting that is given somewhere, where each one is from, and what is wrong."""
    flags, problems = parse_flags(argv)
    variables, contradictions = parse_variables(cls, environ)
    values, origin = {}, dict.fromkeys(cls.model_fields, "default")
    sources = {"hyperparameter": hyperparameters(environ), "environment": variables, "flag": flags}
    for source, found in sources.items():  # the later one wins
        given = {name: value for name, value in found.items() if _is_set(value)}
        values |= given
        origin |= dict.fromkeys(given, source)
    if not values.keys() & cls.FOLDERS:
        demo = {name: value for name, value in cls.DEMO_DEFAULTS.items() if name not in values}
        values |= demo
        origin |= dict.fromkeys(demo, "drawn faces")
    for name in [name for name in values if name not in cls.model_fields]:
        # A job's hyperparameters may serve several of its scripts; one of SageMaker's launchers makes flags of them.
        if name not in sources["hyperparameter"] or name not in KNOWN:
            problems.append(f"{name} ({origin[name]}): there is no such setting{did_you_mean(name, cls.model_fields)}")
        del values[name], origin[name]
    return values, origin, problems + contradictions


def parse_variables(cls: type[Settings], environ) -> tuple[dict[str, str], list[str]]:
    """{setting: value} and what is wrong, from environment variables in any case."""
    found: dict[str, dict[str, str]] = {}
    for variable, value in environ.items():
        if variable.lower() in cls.model_fields and _is_set(value):
            found.setdefault(variable.lower(), {})[variable] = value
    problems = [
        f"{' and '.join(f'{variable}={value}' for variable, value in given.items())}: expected one value, found several"
        for given in found.values()
        if len(set(given.values())) > 1
    ]
    return {name: next(iter(given.values())) for name, given in found.items()}, problems


def parse_flags(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """{setting: value} and what is wrong, from `--name value`, `--name=value` and `--name one two`."""
    flags, problems, name = {}, [], None
    for word in argv:
        if dashes := FLAG.match(word):
            key, equals, value = word[dashes.end() :].partition("=")
            name = _canonical(key)
            flags[name] = [value] if equals else []
        elif name is None:
            problems.append(f"{word!r}: expected --name value")
        else:
            flags[name].append(word)
    problems += [f"--{name}: expected a value after it" for name, words in flags.items() if not words]
    return _own({name: " ".join(words) for name, words in flags.items()}), problems


def hyperparameters(environ) -> dict:
    """SageMaker's hyperparameters: SM_HP_NAME (text), and SM_HPS (typed, one JSON object)."""
    try:
        typed = json.loads(environ.get("SM_HPS") or "{}")
    except ValueError:
        typed = None
    if not isinstance(typed, dict):
        raise InputError(f"SM_HPS={environ['SM_HPS']}: expected a JSON object of hyperparameters")
    single = {name[6:]: value for name, value in environ.items() if name.startswith("SM_HP_") and _is_set(value)}
    return _own({_canonical(name): value for name, value in {**typed, **single}.items()})


def sagemaker_checkpoints() -> pathlib.Path | None:
    """The folder that SageMaker keeps while it moves a job to another machine, where the job was given one."""
    folder = pathlib.Path(os.environ.get("SM_INPUT_CONFIG_DIR") or "/opt/ml/input/config")
    try:
        return pathlib.Path(json.loads((folder / "checkpointconfig.json").read_text())["LocalPath"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_setting(variable: str) -> bool:
    """Whether an environment variable is, or holds, settings of any script."""
    return variable.lower() in KNOWN or variable == "SM_HPS" or variable.startswith("SM_HP_")


def near_misses(environ) -> list[str]:
    """A line for every environment variable whose name is nearly, but not quite, a setting's."""
    lines = []
    for variable in sorted(environ):
        name = variable.lower()
        platform = name.startswith("sm_") and (not name.startswith("sm_channel_") or name == "sm_channel_code")
        if name not in KNOWN and not platform and (hint := did_you_mean(name, KNOWN)):
            lines.append(f"{variable} is set but is not a setting{hint}")
    return lines


def did_you_mean(name: str, names) -> str:
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.84)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def describe(settings: Settings, origin: dict[str, str]) -> str:
    """The settings as aligned lines: name, value, where it came from."""
    rows = [(name, as_text(value)) for name, value in settings]
    width = max(len(name) for name, _ in rows)
    value_width = min(40, max(len(value) for _, value in rows))
    return "\n".join(f"  {name:{width}}  {value:{value_width}}  {origin[name]}" for name, value in rows)


def own_fields(cls: type[Settings]) -> dict:
    """The settings of a script that are not another script's, whose class it extends."""
    others = {
        name for base in SCRIPTS.values() if base is not cls and issubclass(cls, base) for name in base.model_fields
    }
    return {name: field for name, field in cls.model_fields.items() if name not in others}


def table(cls: type[Settings], choices: dict | None = None) -> str:
    """The settings of a script as a Markdown table: name, default, meaning."""
    lines = ["| setting | default | meaning |", "|--|--|--|"]
    for script, base in SCRIPTS.items():
        if base is not cls and issubclass(cls, base):
            lines.append(f"| | | every setting of {script} but `NAME`, and: |")
    for name, field in own_fields(cls).items():
        default = f"`{as_text(field.default)}`" if field.default is not None else ""
        text = field.description
        names = getattr(field.annotation, "__args__", ()) if "Literal" in str(field.annotation) else ()
        names = names or (choices or {}).get(name, ())
        if 1 < len(names) <= LISTED:
            text += f" One of {', '.join(f'`{choice}`' for choice in names)}."
        lines.append(f"| `{name.upper()}` | {default} | {text} |")
    return "\n".join(lines)


def as_text(value) -> str:
    """A value as a person would type it."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _is_set(value) -> bool:
    return value is not None and str(value).strip() not in ("", "null")


def _canonical(name: str) -> str:
    return name.lower().replace("-", "_")


def _own(values: dict) -> dict:
    return {name: value for name, value in values.items() if not name.startswith(FOREIGN)}


def _not_among(name: str, value, names, origin: str) -> str:
    close = difflib.get_close_matches(str(value).lower(), names, n=3, cutoff=0.5)
    expected = f"one of {', '.join(close or list(names)[:20])}"
    line = f"{name.upper()}={value}: expected {expected}{' (the nearest names)' if close else ''}, found {value!r}"
    if name == "name" and origin == "environment":
        line += "; some systems set NAME themselves: give NAME=resnet18, say"
    return line


def _lines(detail: dict, values: dict) -> list[str]:
    """One of pydantic's errors as our lines."""
    text = detail["msg"].removeprefix("Value error, ")
    text = re.sub("^Input should be (?=greater|less)", "expected a number ", text)
    text = text.replace("Input should be", "expected")
    if not detail["loc"]:  # between settings: names itself
        return text.split("\n")
    name = str(detail["loc"][0])
    return [f"{name.upper()}={values.get(name)}: {text}"]
