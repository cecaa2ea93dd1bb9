"""What settings classes share: their base class, and the groups of settings that several scripts have."""

import inspect
import pathlib
from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from toolkit.config.types import Corrections, Crop, Device, Fit, InputFolder, Size, as_text, coerced

DEMO = pathlib.Path("demo")  # folder of the drawn faces and of what the scripts make of them
DEMO_DATA = DEMO / "data"


class Settings(BaseModel):
    """The settings of a script: typed, checked together, frozen. If no folder is set, the drawn faces are used."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    FOLDERS: ClassVar[tuple[str, ...]] = ()  # set all of them, or none for the drawn faces
    DEMO_DEFAULTS: ClassVar[dict] = {}  # other defaults for the drawn faces
    LEFT_OUT: ClassVar[tuple[str, ...]] = ()  # inherited settings that this script does not have
    DEMO_MEANS: ClassVar[str] = "working on drawn faces in"  # printed before the folder of the drawn faces

    @property
    def demo(self) -> bool:
        """Whether the script works on the drawn faces, as no folder is set."""
        return not self.model_fields_set.intersection(self.FOLDERS)

    @classmethod
    def in_order(cls) -> list[str]:
        """All settings in the order of every list: folders, those of the class itself, then those of its groups."""
        groups = [name for base in cls.__mro__ for name in inspect.get_annotations(base) if name in cls.model_fields]
        return list(dict.fromkeys([*cls.FOLDERS, *groups]))

    def __iter__(self) -> Iterator[tuple[str, object]]:
        """Each setting and its value, in the order of `in_order`; pydantic's own order begins with the groups."""
        return iter([(name, getattr(self, name)) for name in self.in_order()])

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_type(cls, value, info: ValidationInfo):
        return coerced(value, cls.model_fields[info.field_name].annotation)

    @model_validator(mode="after")
    def _fit_together(self, info: ValidationInfo):
        # Values from a recipe count as defaults: it is no error if a given setting leaves one without effect.
        self.model_fields_set.difference_update((info.context or {}).get("presets", ()))
        if problems := list(self.problems()):
            raise ValueError("\n".join(problems))
        return self

    def problems(self) -> Iterator[str]:
        """A line for each conflict between settings that are valid one by one. Subclasses add theirs."""
        missing = [name.upper() for name in self.FOLDERS if name not in self.model_fields_set]
        if missing and not self.demo:
            yield (
                f"{' and '.join(missing)}: expected a folder, found nothing set; "
                f"set all of {', '.join(self.FOLDERS).upper()}, or none of them to use the drawn faces"
            )

    def only_with(self, other: str, value, *names: str) -> Iterator[str]:
        """A line for each of `names` that is set although `other`, on which its effect depends, is not `value`."""
        key, found = other.upper(), getattr(self, other)
        remedy = f"leave {key} unset" if value is None else f"set {key}={as_text(value)}"
        for name in names:
            if name in self.model_fields_set and found != value:
                where = f"where {key} is unset" if found is None else f"with {key}={as_text(found)}"
                yield f"{name.upper()}: has no effect {where}; remove it, or {remedy}"


class Photographs(Settings):
    """Which photographs are read."""

    max_megapixels: float = Field(100, gt=0)
    """Most pixels of a photograph, in millions; a larger one counts as unreadable."""


class UnreadablePhotographs(Settings):
    """What happens to training photographs that cannot be read."""

    on_bad_image: Literal["stop", "leave_out", "repair"] = "stop"
    """Unreadable photographs stop the script, or are left out; `repair` reads JPEGs that lack only their end."""


class TrainingData(Photographs):
    """Which photographs, with which labels, in which form and order."""

    sm_channel_train: InputFolder = DEMO_DATA / "train" / "images"
    """Folder of training photographs: the image folder itself, or its parent."""
    relabel: Corrections = "sure"
    """Label corrections: `sure` or `all` rows of outliers.csv, paths of such files, several with commas, or `none`."""
    size: Size = (128, 96)
    """Height x width of the model's input in pixels."""
    crop: Crop = "auto"
    """Part to use: `top,left,bottom,right` as shares; one share: the middle of height and width; `auto`: the faces."""
    fit: Fit = "squeeze"
    """How that part becomes SIZE: `squeeze` changes its proportions, `pad` repeats the edge, `cover` cuts the rest."""
    seed: int = Field(42, ge=0, lt=2**32)
    """Seed of the split, the order, the augmentation and the first weights."""


class SplitTrainingData(TrainingData):
    """`TrainingData`, with people held out."""

    val_ratio: float = Field(0.2, ge=0, lt=1)
    """Share of people held out for validation; 0: everybody trains, for all epochs, and nothing is validated."""


class EvalData(Photographs):
    """Which photographs to classify."""

    sm_channel_eval: InputFolder = DEMO_DATA / "eval"
    """Folder that holds `images/` and `info.csv`."""


class GroundTruth(Settings):
    """Where the true classes are."""

    sm_ground_truth_dir: InputFolder = DEMO_DATA / "eval"
    """Folder that holds `gt.csv`."""


class TrainedRuns(Settings):
    """Which runs to use."""

    sm_channel_model: InputFolder = DEMO / "runs"
    """Folder of runs, or one run folder."""
    name: str | None = None
    """Run folders (`a,b`); unset: the newest finished run. A run of folds means all its nets, `a/final` one."""


class Hardware(Settings):
    """Where and how the model runs, and where decoded photographs are kept."""

    device: Device = "auto"
    """`auto`: CUDA, else MPS, else the CPU."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto`: bf16 if the hardware computes in it, else fp32."""
    cache_gib: float = Field(8.0, ge=0)
    """Most memory for decoded photographs, in GiB; if they need more: a temporary file, or decoded at each use."""
    cache_dir: pathlib.Path | None = None
    """Folder that keeps decoded photographs for later runs; unset: they are not kept."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        for name in ("sm_channel_train", "sm_channel_eval", "sm_channel_pseudo"):
            folder = getattr(self, name, None)
            if self.cache_dir and folder and _is_inside(self.cache_dir, folder):
                key = name.upper()
                yield f"CACHE_DIR={self.cache_dir}: expected a folder outside of {key}, where nothing is written"


class Preset(Settings):
    """Defaults from a file."""

    recipe: str | None = None
    """Name of a file in recipes/, whose settings become defaults: `quick`, `contest`, `best`, or one of your own."""


class HtmlPage(Settings):
    """What the HTML page of a script shows."""

    report_photos: bool = True
    """Show photographs in the HTML page; `false` if faces must not be shared."""
    pixelate: bool = False
    """Show photographs as mosaics, in which people are hard to recognise, for a page that is shared."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from self.only_with("report_photos", True, "pixelate")


def _is_inside(folder: pathlib.Path, other: pathlib.Path) -> bool:
    return folder.resolve().is_relative_to(other.resolve())
