"""Types of settings beyond those of pydantic: text to value, with an error that says what was expected, and back."""

import contextlib
import functools
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat, TypeAdapter

# Below 32 the deepest backbones have no pixel left after their pooling; above 2048 no machine has the memory.
SIDES_PX = range(32, 2049)
LONGEST_NAME = 200  # of a folder: systems allow 255 bytes, and -2 or a lock's name may be added
SHARE_DIGITS = 6
WHOLE = (0.0, 0.0, 1.0, 1.0)  # CROP that leaves nothing out
RUN_WEIGHTS = "model.safetensors"  # the weights in the folder of a run
QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019"}  # straight ones, and those of word processors
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt")


def plain(value):
    """The text without blanks, line ends and a pair of quotes around it, which stay where no shell has read it."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    return text[1:-1].strip() if len(text) > 1 and QUOTES.get(text[0]) == text[-1] else text


def coerced(value, annotation):
    """`value` for a setting with this annotation: a word as the annotation spells it, a path with ~ expanded.

    Raises ValueError on true or false in place of a number, and on a path that is an address or has control characters.
    pydantic checks all else.
    """
    types = _all_of(annotation)
    if value is not None and (words := words_of(annotation)):
        return the_word(as_text(value), words)
    if pathlib.Path in types and isinstance(value, str):
        if any(unicodedata.category(character) == "Cc" for character in value):
            raise ValueError("expected a path without control characters")
        if ADDRESS.match(value):  # as a path it would be a folder `s3:` here, which is lost with the machine
            raise ValueError("expected a folder or file of this machine, found an address; copy or mount it")
        return os.path.expanduser(value)
    if isinstance(value, bool) and {int, float}.intersection(types):
        raise ValueError(f"expected a number, found {as_text(value)}")
    return value


def words_of(annotation) -> list[str]:
    """The words that are values of a setting with this annotation."""
    return [word for word in _all_of(annotation) if isinstance(word, str)]


def _all_of(annotation) -> list:
    """An annotation and all in its brackets."""
    return [annotation, *(part for one in get_args(annotation) for part in _all_of(one))]


def the_word(value: str, words: Iterable[str]) -> str:
    """`value`, spelled as in `words` if exactly one of them differs from it only in letter case."""
    words = list(words)
    alike = [word for word in words if word.lower() == value.lower()]
    return alike[0] if value not in words and len(alike) == 1 else value


def existing_folder(path: pathlib.Path) -> pathlib.Path:
    """`path`, if it is a folder. Raises ValueError."""
    # In Pipe mode SageMaker makes named pipes CHANNEL_0, CHANNEL_1 and so on, and no folder CHANNEL.
    if pathlib.Path(f"{path}_0").is_fifo():
        raise ValueError("expected a folder, found a channel in Pipe mode; set its input mode to File or FastFile")
    if not path.is_dir():
        raise ValueError(f"expected a folder, found {'a file' if path.exists() else 'nothing'} there")
    return path


def existing_file(path: pathlib.Path) -> pathlib.Path:
    """`path`, if it is a file. Raises ValueError."""
    if not path.is_file():
        raise ValueError(f"expected a file, found {'a folder' if path.is_dir() else 'nothing'} there")
    return path


def corrections_named(text: str) -> list[str]:
    """The parts of RELABEL between its commas: sure, all, none or paths. An existing file is one path, comma or not."""
    return [text] if os.path.isfile(text) else [part.strip() for part in text.split(",")]


def known_corrections(text: str) -> str:
    """`text` with ~ expanded, if all its parts are keywords or existing files. Raises ValueError."""
    keywords = ("sure", "all", "none")
    parts = [os.path.expanduser(the_word(part, keywords)) for part in corrections_named(text)]
    wrong = [part for part in parts if part not in keywords and not os.path.isfile(part)]
    if wrong:
        raise ValueError(
            "expected sure, all, none or the path of a table of corrections, or several with commas between them; "
            f"found no such file: {', '.join(map(repr, wrong))}"
        )
    if "none" in parts and len(parts) > 1:
        others = ", ".join(part for part in parts if part != "none")
        raise ValueError(f"expected none alone, found it beside {others}; remove none, or all others")
    return ",".join(parts)


def weights_file(weights: str) -> pathlib.Path:
    """The file of WEIGHTS where that is a path: the folder of a run stands for the weights in it."""
    path = pathlib.Path(weights)
    return path / RUN_WEIGHTS if path.is_dir() else path


def is_path(weights: str) -> bool:
    return weights not in ("imagenet", "none")


def known_weights(text: str) -> str:
    """`text` with ~ expanded, if it is imagenet, none, the folder of a run, or a file of weights. Raises ValueError."""
    if not is_path(text.lower()):
        return text.lower()
    text = os.path.expanduser(text)
    file, found = weights_file(text), "nothing there"
    if file.is_file() and file.suffix in WEIGHTS_SUFFIXES:
        return text
    if file.is_file():
        found = f"a file of another kind, {file.name}"
    elif file.parent.is_dir() and file.name == RUN_WEIGHTS:
        folds = sorted(path.parent.name for path in file.parent.glob(f"fold-*/{RUN_WEIGHTS}"))
        found = f"a run of folds; name one of them, {text}/{folds[0]}" if folds else f"a folder without {RUN_WEIGHTS}"
    raise ValueError(
        f"expected imagenet, none, the folder of a run, or a state dict ({', '.join(WEIGHTS_SUFFIXES)}), found {found}"
    )


def height_and_width(value) -> tuple[int, int]:
    """(height, width) in pixels from "128x96", "128 96", "128,96", "[128, 96]" or a pair of numbers.

    Raises ValueError on any other form, and on a side outside SIDES_PX.
    """
    text = str(value).strip("[]() ")
    sides = [int(side) for side in re.findall(r"\d+", text)]
    if not re.fullmatch(r"\d+\s*[x, ]\s*\d+", text, re.IGNORECASE) or not all(side in SIDES_PX for side in sides):
        raise ValueError(f"expected height and width in pixels, {SIDES_PX[0]} to {SIDES_PX[-1]}, such as 128x96")
    return sides[0], sides[1]


def as_folder(name: str) -> str:
    """The name of a folder for a backbone: a slash, as in timm's names, would make two folders."""
    return name.replace("/", "-")


def folder_of_run(name: str) -> str:
    """`name`, if the folder of a run may be called so. Raises ValueError."""
    # NAME lists runs with commas. fold-0 and final are folders inside a run of folds: lookup.py would take the folder
    # that holds one for such a run. leaderboard holds the runs of leaderboard.py.
    is_plain = name == name.strip() and name.isprintable() and not name.startswith(".") and not set(name) & set("/\\,")
    if not is_plain or len(os.fsencode(name)) > LONGEST_NAME or re.fullmatch(r"fold-\d+|final|leaderboard", name):
        raise ValueError(
            "expected the name of a new folder, without slashes, commas and a leading dot, and none of "
            f"fold-0, final, leaderboard; at most {LONGEST_NAME} bytes"
        )
    return name


def crop_box(value) -> tuple[float, float, float, float]:
    """(top, left, bottom, right) as shares, from 0 to 1, of a photograph's height and width: the inverse of `as_text`.

    From "0.1,0.2,0.9,0.8", "[0.1, 0.2, 0.9, 0.8]", four numbers, or one: that share of height and width, in the middle.
    Raises ValueError on anything else.
    """
    try:
        numbers = [float(number) for number in re.split(r"[\s,]+", str(value).strip("[]() "))]
        if len(numbers) == 1:
            numbers = [(1 - numbers[0]) / 2] * 2 + [(1 + numbers[0]) / 2] * 2
        top, left, bottom, right = (round(number, SHARE_DIGITS) for number in numbers)
        if 0 <= top < bottom <= 1 and 0 <= left < right <= 1:
            return top, left, bottom, right
    except ValueError:  # no numbers, or not so many
        pass
    raise ValueError(
        "expected top,left,bottom,right as shares of the photograph's height and width, such as 0.1,0.2,0.9,0.8, or "
        "one number above 0, up to 1: that share of both, in the middle"
    )


def crop_box_or_auto(value) -> tuple[float, float, float, float] | str:
    """`crop_box`, or "auto"."""
    try:
        return "auto" if str(value).strip().lower() == "auto" else crop_box(value)
    except ValueError as error:
        raise ValueError(f"expected auto, or {str(error).removeprefix('expected ')}") from None


def whole_device(value: str) -> str:
    """ "cuda" for "cuda:0" or "0"; any other `value` as it is. Raises ValueError on the number of another GPU."""
    kind, _, number = value.rpartition(":")
    if kind in ("", "cuda") and number.isdecimal():
        if int(number):
            raise ValueError(
                f"expected auto, cuda, mps or cpu; for one of several GPUs set CUDA_VISIBLE_DEVICES={number}, and "
                "DEVICE=cuda"
            )
        return "cuda"
    return value


def as_text(value) -> str:
    """A value, of Python or of JSON, as a person types it: true, 128x96, 0.1,0.2,0.9,0.8, an empty text for None."""
    if isinstance(value, tuple | list) and len(value) == 4:  # CROP; one number, if that says the same
        with contextlib.suppress(TypeError, ValueError, OverflowError):  # four others, in a foreign file
            share = f"{round(value[2] - value[0], SHARE_DIGITS):.{SHARE_DIGITS}g}"
            return share if crop_box(share) == tuple(value) else ",".join(f"{n:.{SHARE_DIGITS}g}" for n in value)
    if isinstance(value, tuple | list):
        return "x".join(map(str, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# What makes a dataclass of plain values, or raises ValueError; it takes milliseconds to build.
adapter = functools.cache(TypeAdapter)

Device = Annotated[Literal["auto", "cuda", "mps", "cpu"], BeforeValidator(whole_device)]
NameOrPath = Annotated[str, AfterValidator(os.path.expanduser)]
# Numbers in files' headers: with larger ones, which no training makes, arithmetic would overflow.
NotNegative = Annotated[FiniteFloat, Field(ge=0, le=1e9)]
Positive = Annotated[FiniteFloat, Field(gt=0, le=1e9)]
Whole = Annotated[int, Field(ge=0, le=10**9)]
InputFile = Annotated[pathlib.Path, AfterValidator(existing_file)]
InputFolder = Annotated[pathlib.Path, AfterValidator(existing_folder)]
RunName = Annotated[str, AfterValidator(folder_of_run)]
Size = Annotated[tuple[int, int], BeforeValidator(height_and_width)]
Crop = Annotated[Literal["auto"] | tuple[float, float, float, float], BeforeValidator(crop_box_or_auto)]
Fit = Literal["squeeze", "pad", "cover"]
Corrections = Annotated[str, AfterValidator(known_corrections)]
Weights = Annotated[str, AfterValidator(known_weights)]
