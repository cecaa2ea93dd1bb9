"""What settings are made of: their types, which say what was expected, and what the settings of all scripts share."""

import os
import pathlib
import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

SIDES_PX = range(32, 2049)  # below them the deepest nets have no pixel left, above them no machine has the memory


def existing_folder(path: pathlib.Path) -> pathlib.Path:
    if pathlib.Path(f"{path}_0").is_fifo():
        raise ValueError("expected a folder, found a channel in Pipe mode; set its input mode to File or FastFile")
    if not path.is_dir():
        raise ValueError(f"expected a folder, found {'a file' if path.exists() else 'nothing'} there")
    return path


def corrections_named(text: str) -> list[str]:
    """What RELABEL names between its commas: sure, all, none, paths. An existing file is one path, comma or not."""
    return [text] if os.path.isfile(text) else [part.strip() for part in text.split(",")]


def corrections(text: str) -> str:
    parts = corrections_named(text)
    wrong = [part for part in parts if part not in ("sure", "all", "none") and not os.path.isfile(part)]
    if wrong:
        raise ValueError(
            "expected sure, all, none or the path of a table of corrections, or several with commas between them; "
            f"found no such file: {', '.join(map(repr, wrong))}"
        )
    if "none" in parts and len(parts) > 1:
        others = ", ".join(part for part in parts if part != "none")
        raise ValueError(f"expected none alone, found it beside {others}; take out none, or all others")
    return text


def height_and_width(value) -> tuple[int, int]:
    """(height, width) in pixels from "128x96", "128 96", "128,96", "[128, 96]" or a pair of numbers."""
    text = str(value).strip("[]() ")
    sides = [int(side) for side in re.findall(r"\d+", text)]
    if not re.fullmatch(r"\d+\s*[x, ]\s*\d+", text, re.IGNORECASE) or not all(side in SIDES_PX for side in sides):
        raise ValueError(f"expected height and width in pixels, {SIDES_PX[0]} to {SIDES_PX[-1]}, such as 128x96")
    return sides[0], sides[1]


def lower_case(value) -> str:
    return str(value).lower()


def _is_inside(folder: pathlib.Path | None, other: pathlib.Path) -> bool:
    return folder is not None and folder.resolve().is_relative_to(other.resolve())


class OnlyWith:
    """Marks a setting that acts only where another setting has this value."""

    def __init__(self, setting: str, value):
        self.setting, self.value = setting, value


InputFolder = Annotated[pathlib.Path, AfterValidator(existing_folder)]
Size = Annotated[tuple[int, int], BeforeValidator(height_and_width)]
Corrections = Annotated[str, AfterValidator(corrections)]
Device = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["auto", "bf16", "fp32"]


class Settings(BaseModel):
    """What all scripts share. Frozen; a folder's default is its place in the demonstration on drawn faces."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    FOLDERS: ClassVar[tuple[str, ...]]
    DEMO_DEFAULTS: ClassVar[dict] = {}

    @property
    def demo(self) -> bool:
        """Whether no folder was named, so that the drawn faces are used."""
        return not self.model_fields_set.intersection(self.FOLDERS)

    @model_validator(mode="after")
    def _fit_together(self):
        if problems := self.problems():
            raise ValueError("\n".join(problems))
        return self

    def problems(self) -> list[str]:
        """What is wrong between settings that are each right alone: a line each."""
        found = []
        missing = [name.upper() for name in self.FOLDERS if name not in self.model_fields_set]
        if missing and not self.demo:
            found.append(
                f"{' and '.join(missing)}: expected a folder, found nothing set; "
                f"set all of {', '.join(self.FOLDERS).upper()}, or none of them to use the drawn faces"
            )
        found += [
            f"CACHE_DIR={self.cache_dir}: expected a folder outside of {name.upper()}, into which nothing is written"
            for name in self.FOLDERS
            if name in ("sm_channel_train", "sm_channel_eval")
            and _is_inside(getattr(self, "cache_dir", None), getattr(self, name))
        ]
        for name in sorted(self.model_fields_set):
            for mark in type(self).model_fields[name].metadata:
                if isinstance(mark, OnlyWith) and getattr(self, mark.setting) != mark.value:
                    key, now, wanted = mark.setting.upper(), getattr(self, mark.setting), mark.value
                    now, wanted = (str(value).lower() if isinstance(value, bool) else value for value in (now, wanted))
                    other = f"leave {key} unset" if wanted is None else f"set {key}={wanted}"
                    found.append(f"{name.upper()}: has no effect with {key}={now}; remove it, or {other}")
        return found
