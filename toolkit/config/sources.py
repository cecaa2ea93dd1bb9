"""From flags, environment variables and SageMaker's hyperparameters to one settings object.

Precedence: flag > environment variable > hyperparameter > files of presets.py > default. Names may have any case, flags
dashes or underscores; an empty value or `null` counts as unset. Blanks and a pair of quotes around a value are removed:
files of variables for containers keep them, because no shell reads such files.
"""

import difflib
import json
import os
import pathlib
import re
import sys
from collections.abc import Container

from pydantic import TypeAdapter, ValidationError

from toolkit.config import presets, synonyms
from toolkit.config.settings import SCRIPTS
from toolkit.config.shared import DEMO, Settings
from toolkit.config.types import as_text, plain, the_word, words_of
from toolkit.system import world
from toolkit.system.console import InputError, say, warn

FLAG = re.compile(r"--?(?=[A-Za-z_])")  # one dash too: SageMaker writes one-letter hyperparameters so; -1 is a value
PRETRAINED = {True: "imagenet", False: "none"}  # another name for WEIGHTS, and what its values mean
ALL_NAMES = {name for cls in SCRIPTS.values() for name in cls.model_fields} | {"pretrained"}
MOST_CHOICES = 8  # a longer list of choices is left out of the table
PLATFORM_PREFIXES = ("_", "sagemaker_")  # SageMaker's own hyperparameters, which it passes along with the user's
PLATFORM_FLAGS = ("local_rank",)  # of deepspeed and torch.distributed.launch, which set LOCAL_RANK too
SAGEMAKER_VARIABLES = ("sm_module_dir", "sm_channel_code")  # variables of its own that only look like settings
KUBERNETES = re.compile(r"(tcp|udp|sctp)://.+:\d+")  # Kubernetes sets SERVE_PORT so if a service is called `serve`


def read(cls: type[Settings], argv: list[str], choices: dict | None = None) -> tuple[Settings, dict[str, str]]:
    """The settings of a script, and {setting: source of its value}.

    `choices` is {setting: allowed values, or a function that gives them for a value}, for those that only the script
    knows. Prints the table of settings and exits on --help; prints warnings of near misses on stderr. Raises InputError
    with a line for every wrong setting.
    """
    if {"--help", "-h"} & set(argv):
        say(*markdown_table(cls, choices).split("\n"))
        sys.exit(0)
    values, origin, problems = merge(cls, argv, os.environ)
    if problem := world.problem():
        problems.insert(0, problem)
    if note := world.warning():
        warn(f"warning: {note}")
    for line in near_misses(os.environ, names_of(cls) - values.keys()):
        warn(f"warning: {line}")
    for name, allowed in (choices or {}).items():
        if name not in values:
            continue
        allowed = list(allowed(str(values[name])) if callable(allowed) else allowed)
        values[name] = the_word(values[name], allowed) if isinstance(values[name], str) else values[name]
        if values[name] not in allowed:
            problems.append(_wrong_choice(name, values.pop(name), allowed, origin[name]))
    from_files = [name for name in values if presets.is_preset(origin[name])]
    try:
        settings = cls.model_validate(values, context={"presets": from_files})
    except ValidationError as error:
        problems += [line for detail in error.errors() for line in _lines_of(detail, values)]
    if problems:
        raise InputError(*problems)
    if settings.demo:
        say(f"no folder is set: {settings.DEMO_MEANS} {DEMO.absolute()}")
    return settings, origin


def merge(cls: type[Settings], argv: list[str], environ) -> tuple[dict, dict[str, str], list[str]]:
    """{setting: value} of all that are set, {setting: source}, and a line for each problem."""
    flags, problems = parse_flags(argv)
    variables, contradictions = parse_variables(cls, environ)
    values, origin = {}, dict.fromkeys(cls.model_fields, "default")
    sources = {"hyperparameter": hyperparameters(environ), "environment": variables, "flag": flags}
    sources = {source: {name: plain(value) for name, value in found.items()} for source, found in sources.items()}
    given = {name: value for found in sources.values() for name, value in found.items() if _is_set(value)}
    sources = presets.find(cls, given) | sources
    for source, found in sources.items():  # later sources win
        given = {name: value for name, value in found.items() if _is_set(value)}
        values |= given
        origin |= dict.fromkeys(given, source)
    if "weights" in cls.model_fields:
        problems += _replace_pretrained(values, origin)
    if not values.keys() & cls.FOLDERS:
        demo = {name: value for name, value in cls.DEMO_DEFAULTS.items() if name not in values}
        values |= demo
        origin |= dict.fromkeys(demo, "drawn faces")
    for name in [name for name in values if name not in cls.model_fields]:
        # A job's hyperparameters may be for another of its scripts. SageMaker's classic launcher passes them as flags
        # too, so a flag of the same name is ignored with them.
        if name not in sources["hyperparameter"] or name not in ALL_NAMES:
            problems.append(f"{name} ({origin[name]}): there is no such setting{did_you_mean(name, cls.model_fields)}")
        del values[name], origin[name]
    return values, origin, problems + contradictions


def parse_variables(cls: type[Settings], environ) -> tuple[dict[str, str], list[str]]:
    """{setting: value} from environment variables in any case, and a line for each problem."""
    found: dict[str, dict[str, str]] = {}
    for variable, value in environ.items():
        if variable.lower() in names_of(cls) and _is_set(plain(value)) and not KUBERNETES.fullmatch(value):
            found.setdefault(variable.lower(), {})[variable] = plain(value)
    problems = [
        f"{' and '.join(f'{variable}={value}' for variable, value in given.items())}: expected one value, found several"
        for given in found.values()
        if len(set(given.values())) > 1
    ]
    return {name: next(iter(given.values())) for name, given in found.items()}, problems


def names_of(cls: type[Settings]) -> set[str]:
    """The names of a script's settings, and other names of them."""
    return cls.model_fields.keys() | ({"pretrained"} if "weights" in cls.model_fields else set())


def _replace_pretrained(values: dict, origin: dict[str, str]) -> list[str]:
    """Put WEIGHTS in the place of PRETRAINED, in both dictionaries. A line for each problem."""
    if "pretrained" not in values:
        return []
    given, source = values.pop("pretrained"), origin.pop("pretrained")
    try:
        weights = PRETRAINED[TypeAdapter(bool).validate_python(given)]
    except ValidationError:
        return [f"PRETRAINED={given}: expected true (WEIGHTS=imagenet) or false (WEIGHTS=none)"]
    if str(values.get("weights", weights)).lower() != weights and not presets.is_preset(origin["weights"]):
        return [f"PRETRAINED={as_text(given)} and WEIGHTS={values['weights']}: expected one of them; remove PRETRAINED"]
    values["weights"], origin["weights"] = weights, source
    return []


def parse_flags(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """{setting: value} from `--name value`, `--name=value` and `--name one two`, and a line for each problem."""
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
    return _without_platform({name: " ".join(words) for name, words in flags.items()}), problems


def hyperparameters(environ) -> dict:
    """{setting: value} from SageMaker's hyperparameters: SM_HP_NAME (text), and SM_HPS (typed, one JSON object).

    Raises InputError where SM_HPS is anything else.
    """
    try:
        typed = json.loads(environ.get("SM_HPS") or "{}")
    except (ValueError, RecursionError):
        typed = None
    if not isinstance(typed, dict):
        raise InputError(f"SM_HPS={environ['SM_HPS']}: expected a JSON object of hyperparameters")
    single = {name[6:]: plain(value) for name, value in environ.items() if name.startswith("SM_HP_")}
    single = {name: value for name, value in single.items() if _is_set(value)}
    return _without_platform({_canonical(name): value for name, value in {**typed, **single}.items()})


def sagemaker_checkpoints() -> pathlib.Path | None:
    """The checkpoint folder of a SageMaker job, which outlives the machine; None where the job has none."""
    folder = pathlib.Path(os.environ.get("SM_INPUT_CONFIG_DIR") or "/opt/ml/input/config")
    try:
        return pathlib.Path(json.loads((folder / "checkpointconfig.json").read_text())["LocalPath"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def as_flags(values: dict) -> list[str]:
    """Settings as the words of a command line."""
    return [f"--{name}={as_text(value)}" for name, value in values.items()]  # one word: a path may begin with a dash


def without_settings(environ) -> dict[str, str]:
    """The environment for a script that gets all its settings as flags.

    Without this, it would take the settings that have no flag, such as TTA, from the environment of its caller.
    """
    return {key: value for key, value in environ.items() if not _is_setting(key)}


def _is_setting(variable: str) -> bool:
    """Whether an environment variable is, or holds, settings of any script."""
    return variable.lower() in ALL_NAMES or variable == "SM_HPS" or variable.startswith("SM_HP_")


def near_misses(environ, unset: Container[str] = ()) -> list[str]:
    """A line for every environment variable whose name is almost a setting's, or is a setting's in other toolkits.

    Other toolkits' names count only where they mean one of the `unset` settings of this script.
    """
    lines = []
    for variable in sorted(environ):
        name = variable.lower()
        known = unset if name in synonyms.ALL else ALL_NAMES
        if name not in ALL_NAMES and name not in SAGEMAKER_VARIABLES and (hint := did_you_mean(name, known)):
            lines.append(f"{variable} is set but is not a setting{hint}")
    return lines


def did_you_mean(name: str, names) -> str:
    """The end of a message: which of `names` is meant, or else is most similar; empty if there is none."""
    if name in synonyms.NO_WORKERS and "cache_gib" in names:  # of a script that decodes photographs
        return " here: photographs are decoded once, by all CPUs"
    if (meant := synonyms.SETTING_OF.get(name)) in names:
        return f" here; {meant.upper()} is"
    # 0.84 takes EPOCHES for EPOCHS (0.92), but not the common variable LOGNAME for NAME (0.73).
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.84)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def describe(settings: Settings, origin: dict[str, str]) -> list[str]:
    """The settings as aligned lines: name, value, source."""
    rows = [(name, as_text(value)) for name, value in settings]
    width = max(len(name) for name, _ in rows)
    value_width = min(40, max(len(value) for _, value in rows))
    return [f"  {name:{width}}  {value:{value_width}}  {origin[name]}" for name, value in rows]


def own_fields(cls: type[Settings]) -> dict:
    """{setting: pydantic's field} of a script, without those of the script whose class it extends."""
    inherited = {
        name for base in SCRIPTS.values() if base is not cls and issubclass(cls, base) for name in base.model_fields
    }
    return {name: cls.model_fields[name] for name in cls.in_order() if name not in inherited}


def markdown_table(cls: type[Settings], choices: dict | None = None) -> str:
    """The settings of a script as a Markdown table: name, default, description. `choices` as in `read`."""
    lines = ["| setting | default | meaning |", "|--|--|--|"]
    for script, base in SCRIPTS.items():
        if base is not cls and issubclass(cls, base):
            left_out = ", ".join(f"`{name.upper()}`" for name in cls.LEFT_OUT)
            lines.append(f"| | | every setting of {script} but {left_out}, and: |")
    for name, field in own_fields(cls).items():
        default = f"`{as_text(field.default)}`" if as_text(field.default) else ""
        text = field.description
        allowed = words_of(field.annotation) or (choices or {}).get(name, ())
        if not callable(allowed) and 1 < len(allowed) <= MOST_CHOICES:
            text += f" One of {', '.join(f'`{choice}`' for choice in allowed)}."
        lines.append(f"| `{name.upper()}` | {default} | {text} |")
    return "\n".join(lines)


def _is_set(value) -> bool:
    return value is not None and str(value) not in ("", "null")


def _canonical(name: str) -> str:
    return name.lower().replace("-", "_")


def _without_platform(values: dict) -> dict:
    own = (name for name in values if not name.startswith(PLATFORM_PREFIXES) and name not in PLATFORM_FLAGS)
    return {name: values[name] for name in own}


def _wrong_choice(name: str, value, allowed, source: str) -> str:
    close = difflib.get_close_matches(str(value).lower(), allowed, n=3, cutoff=0.5)
    expected = f"one of {', '.join(close or list(allowed)[:20])}"
    line = f"{name.upper()}={value}: expected {expected}{' (the nearest names)' if close else ''}, found {value!r}"
    if name in ("name", "loss"):
        line += f"; one of your own is named in {'OWN in model.py' if name == 'name' else 'LOSSES in loss.py'}"
    if name == "name" and source == "environment":  # WSL, among others, has NAME for the machine's name
        line += "; some systems set NAME themselves: set it, for example NAME=resnet18"
    return line


def _lines_of(detail: dict, values: dict) -> list[str]:
    """One of pydantic's errors as lines for the user."""
    text = detail["msg"].removeprefix("Value error, ")
    text = re.sub("^Input should be (?=greater|less)", "expected a number ", text)
    text = text.replace("Input should be", "expected")
    if not detail["loc"]:  # of Settings.problems, whose lines name their settings
        return text.split("\n")
    name = str(detail["loc"][0])
    return [f"{name.upper()}={_shown(values.get(name))}: {text}"]


def _shown(value) -> str:
    """A value in a message: as it was typed, or with its line ends and invisible characters spelled out."""
    text = as_text(value) if isinstance(value, bool) else str(value)
    return text if text.isprintable() else repr(text)
