"""Every setting of every script: its name, type, default and meaning. `environment.read` fills them in."""

import pathlib
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from toolkit.config.types import Corrections, Device, InputFolder, OnlyWith, Precision, Settings, Size, lower_case
from toolkit.labels import AGE_FROM_YEARS

DEMO = pathlib.Path("demo")  # where the drawn faces, and what is made of them, go
DEMO_DATA = DEMO / "data"
# Learning rates and weight decays that train resnets from scratch (benchmarks/recipes.py). Pretrained nets take half
# the rate, and those of model.WIDE_AT_THE_END a fifth of it.
OPTIMIZERS_OWN = {
    "adamw": {"lr": 1e-3, "weight_decay": 0.05},
    "adam": {"lr": 1e-3, "weight_decay": 0.0},
    "sgd": {"lr": 0.02, "weight_decay": 5e-4},
}


class TrainSettings(Settings):
    """train.py"""

    FOLDERS = ("sm_channel_train", "sm_model_dir")
    # A small net from scratch in about a minute on two cores: drawn faces need no ImageNet weights.
    DEMO_DEFAULTS: ClassVar[dict] = {"pretrained": False, "size": "96x72", "epochs": 7}

    # They say where and how fast, but not what comes out: a run goes on where they have changed.
    UNDECIDING: ClassVar[tuple[str, ...]] = (
        "sm_channel_train", "sm_model_dir", "sm_checkpoint_dir", "checkpoint_seconds", "resume",
        "device", "cache_gib", "cache_dir", "compile", "report_photos", "tensorboard",
    )  # fmt: skip

    sm_channel_train: InputFolder = DEMO_DATA / "train" / "images"
    """Folder of training photographs: the image folder itself, or its parent."""
    sm_model_dir: pathlib.Path = DEMO / "runs"
    """Folder where runs go, each in a folder of its own."""
    name: str = "resnet18"
    """Backbone, by its torchvision name; also the name of the run."""
    pretrained: bool = True
    """Start from torchvision's ImageNet weights; `false` starts from scratch."""
    size: Size = (128, 96)
    """Height x width in pixels that photographs are brought to; photographs of other proportions are squeezed."""
    head: Literal["flat", "factored"] = "flat"
    """`flat` tells 18 classes; `factored` tells mask, gender and single years of age apart, and joins them."""
    epochs: int = Field(10, ge=1)
    """Passes over the training photographs."""
    batch_size: int = Field(32, ge=2)
    """Photographs a step, at the most: an epoch is cut into equal batches. Larger ones suit a GPU, and long runs."""
    micro_batch_size: int | None = Field(None, ge=2)
    """Photographs of a step that one process takes at once, to save memory; unset takes all of its share."""
    seed: int = Field(42, ge=0, lt=2**32)
    """Decides the split, the order, the augmentation and the first weights."""

    val_ratio: float = Field(0.2, gt=0, lt=1)
    """Share of people held out for validation."""
    folds: int = Field(0, ge=0)
    """Cut people into so many folds and hold out one of them, in place of VAL_RATIO; 0 is off."""
    fold: int | None = Field(None, ge=0)
    """Which fold to hold out, from 0; unset trains them all, one after another."""
    relabel: Corrections = "sure"
    """Label corrections: `sure` or `all` rows of outliers.csv, paths of such files, several with commas, or `none`."""
    augment: Literal["none", "flip", "light", "strong"] = "light"
    """Augmentation policy of training photographs."""
    mix: Literal["none", "mixup", "cutmix"] = "none"
    """Mix half of the photographs with others: blend them, or put half a face beside half of another."""
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    """`shuffle` takes each photograph once an epoch; `balanced` draws classes equally often, and their people."""
    border_ages: Literal["keep", "soften", "leave_out"] = "keep"
    """What becomes of ages 57 to 59 in training: a share of them counts as 60 and over, or they are not used."""

    loss: str = "label_smoothing"
    """Loss, by its name in loss.py."""
    smoothing: Annotated[float, OnlyWith("loss", "label_smoothing")] = Field(0.1, gt=0, lt=1)
    """Share of the label spread over all classes, with LOSS=label_smoothing."""
    gamma: Annotated[float, OnlyWith("loss", "focal")] = Field(2.0, ge=0)
    """How much the focal loss plays down easy photographs, with LOSS=focal."""
    tau: Annotated[float, OnlyWith("loss", "logit_adjusted")] = Field(1.0, gt=0, le=2)
    """How far LOSS=logit_adjusted takes out that classes are rare: 1 is wholly (balanced softmax)."""
    class_weights: Literal["auto", "none", "sqrt", "balanced"] = "auto"
    """Weigh classes by 1/sqrt(n) or 1/n of their photographs; `auto` is `sqrt` where nothing else sees to rare ones."""

    logit_adjustment: float | None = Field(None, ge=0, le=2)
    """How far rare classes are favoured when a class is decided on; unset takes what macro F1 of validation wants."""

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """Optimizer; `sgd` has momentum 0.9."""
    lr: float | None = Field(None, gt=0)
    """Highest learning rate; unset takes 1e-3 (0.02 for sgd), a fifth for vgg and alexnet, half if PRETRAINED."""
    weight_decay: float | None = Field(None, ge=0)
    """Weight decay, but for biases and norms; unset takes the optimizer's own."""
    backbone_lr: Annotated[float, OnlyWith("pretrained", True)] = Field(1.0, gt=0, le=1)
    """Learning rate of the pretrained layers, as a share of LR."""
    freeze_epochs: Annotated[int, OnlyWith("pretrained", True)] = Field(0, ge=0)
    """Epochs in which only the new head learns."""
    ema: bool = False
    """Validate and keep a moving average of the weights."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of all steps over which the learning rate rises to LR."""
    clip_grad: float = Field(1.0, ge=0)
    """Longest gradient, by its 2-norm; 0 is off."""
    patience: int = Field(0, ge=0)
    """Stop after so many epochs without a better macro F1; 0 is off."""

    find_lr: bool = False
    """Try learning rates from low to high in place of training, draw how the loss follows, and suggest one."""
    resume: Annotated[Literal["auto", "never"], BeforeValidator(lower_case)] = "auto"
    """`auto` goes on with an unfinished run of the same settings, photographs and code; `never` begins a new one."""
    checkpoint_seconds: float = Field(300, ge=0)
    """Save the state of the run so often, and at the ends of epochs that are not too short for it."""
    sm_checkpoint_dir: pathlib.Path | None = None
    """Folder for the state of unfinished runs; unset takes SageMaker's where the job has one, else SM_MODEL_DIR."""

    device: Device = "auto"
    """`auto` takes CUDA, else MPS, else the CPU."""
    precision: Precision = "auto"
    """`auto` takes bf16 where the hardware has it, else fp32."""
    cache_gib: float = Field(8.0, ge=0)
    """Memory for decoded photographs; beyond it they lie in a file, or are decoded at each use."""
    cache_dir: pathlib.Path | None = None
    """Folder where decoded photographs are kept for later runs; unset keeps none."""
    compile: Annotated[Literal["auto", "true", "false"], BeforeValidator(lower_case)] = "auto"
    """Compile the net for training; `auto` does so in long runs on CUDA."""
    report_photos: bool = True
    """Show photographs in the run's page, report.html; `false` where people's faces may not travel."""
    tensorboard: bool = False
    """Also write scalars, pictures and hyperparameters for TensorBoard, into the folder tensorboard of the run."""

    def deciding(self) -> dict:
        """The settings that decide what comes out, of JSON's types."""
        return self.model_dump(mode="json", exclude=set(self.UNDECIDING))

    def problems(self) -> list[str]:
        found = super().problems()
        if self.folds == 1:
            found.append("FOLDS=1: expected 0 (off) or 2 and more")
        if self.folds and "val_ratio" in self.model_fields_set:
            found.append(f"VAL_RATIO: has no effect with FOLDS={self.folds}; remove one of them")
        if self.fold is not None and not self.folds:
            found.append(f"FOLD={self.fold}: has no effect without FOLDS; set FOLDS, or remove it")
        elif self.fold is not None and self.fold >= self.folds:
            found.append(f"FOLD={self.fold}: expected less than FOLDS={self.folds}; folds are counted from 0")
        if self.head == "factored" and (self.class_weights not in ("auto", "none") or self.loss == "logit_adjusted"):
            found.append(
                "HEAD=factored: CLASS_WEIGHTS and LOSS=logit_adjusted count classes, and not the years that it learns; "
                "set SAMPLER=balanced in their place, or HEAD=flat"
            )
        if self.freeze_epochs >= self.epochs:
            found.append(f"FREEZE_EPOCHS={self.freeze_epochs}: expected less than EPOCHS={self.epochs}; lower it")
        return found


class InferenceSettings(Settings):
    """inference.py"""

    FOLDERS = ("sm_channel_eval", "sm_channel_model", "sm_output_data_dir")

    sm_channel_eval: InputFolder = DEMO_DATA / "eval"
    """Folder that holds `images/` and `info.csv`."""
    sm_channel_model: InputFolder = DEMO / "runs"
    """Folder where runs are, or one run."""
    sm_output_data_dir: pathlib.Path = DEMO / "output"
    """Folder where `output.csv` goes."""
    name: str | None = None
    """Which run, by the name of its folder; unset takes the newest. Several (`a,b`) and folds answer together."""
    ensemble: Literal["mean", "vote"] = "mean"
    """How several runs answer: by the mean of their probabilities, or each has a vote."""
    tta: bool = False
    """Ask each net about the mirrored photographs too."""
    adapt_priors: bool = True
    """Find how common genders and age bands are among these photographs, and count on it where that can be trusted."""
    old_from: Annotated[int | None, OnlyWith("runtime", "torch")] = Field(None, gt=AGE_FROM_YEARS[0], le=100)
    """First year of the band of 60 and over, for runs of HEAD=factored; unset is 60."""
    probabilities: bool = True
    """Also write `probabilities.csv`: ImageID, a column a class (p0 to p17), and ans. evaluation.html shows them."""
    on_bad_image: Literal["stop", "fallback"] = "stop"
    """A photograph that cannot be read stops the run, or gets FALLBACK_CLASS and is listed in `bad_images.csv`."""
    fallback_class: Annotated[int, OnlyWith("on_bad_image", "fallback")] = Field(4, ge=0, le=17)
    """The class that a bad photograph gets; 4 is the commonest in training (mask worn, female, 30 to 59)."""
    batch_size: int | None = Field(None, ge=1)
    """Photographs a step; unset takes what suits the machine."""
    runtime: Literal["torch", "onnx"] = "torch"
    """`onnx` runs the `model.onnx` that export.py wrote, by onnxruntime on the CPU; `torch` runs the weights."""
    device: Device = "auto"
    """`auto` takes CUDA, else MPS, else the CPU."""
    precision: Annotated[Precision, OnlyWith("runtime", "torch")] = "auto"
    """`auto` takes bf16 where the hardware has it, else fp32."""
    cache_gib: float = Field(8.0, ge=0)
    """Memory for decoded photographs; beyond it they lie in a file, or are decoded at each use."""
    cache_dir: pathlib.Path | None = None
    """Folder where decoded photographs are kept for later runs; unset keeps none."""

    def problems(self) -> list[str]:
        found = super().problems()
        if self.runtime == "onnx" and self.device not in ("auto", "cpu"):
            found.append(f"DEVICE={self.device}: RUNTIME=onnx runs on the CPU; remove it, or set RUNTIME=torch")
        return found


class ServingSettings(InferenceSettings):
    """The handlers of inference.py, which answer requests."""

    FOLDERS = ("sm_channel_model",)
    # What a few photographs at a time have no use for. Of ADAPT_PRIORS they hold the other value.
    WITHOUT_EFFECT: ClassVar[tuple[str, ...]] = (
        "adapt_priors", "probabilities", "on_bad_image", "fallback_class", "cache_gib", "cache_dir",
    )  # fmt: skip

    adapt_priors: bool = False

    def problems(self) -> list[str]:
        given = [name for name in self.WITHOUT_EFFECT if name in self.model_fields_set and getattr(self, name)]
        return super().problems() + [f"{name.upper()}: has no effect on an endpoint; remove it" for name in given]


class EvaluationSettings(Settings):
    """evaluation.py"""

    FOLDERS = ("sm_ground_truth_dir", "sm_output_data_dir")

    sm_ground_truth_dir: InputFolder = DEMO_DATA / "eval"
    """Folder that holds `gt.csv`."""
    sm_output_data_dir: InputFolder = DEMO / "output"
    """Folder that holds `output.csv`, where `evaluation.json` and `evaluation.html` go."""
    report_photos: bool = True
    """Show photographs in evaluation.html; `false` where people's faces may not travel."""


class DatasetSettings(Settings):
    """dataset.py"""

    FOLDERS = ("sm_channel_train", "sm_output_data_dir")

    sm_channel_train: InputFolder = DEMO_DATA / "train" / "images"
    """Folder of training photographs: the image folder itself, or its parent."""
    sm_output_data_dir: pathlib.Path = DEMO / "dataset"
    """Folder where `dataset.html` goes."""
    relabel: Corrections = "sure"
    """Label corrections: `sure` or `all` rows of outliers.csv, paths of such files, several with commas, or `none`."""
    val_ratio: float = Field(0.2, gt=0, lt=1)
    """Share of people held out for validation."""
    seed: int = Field(42, ge=0, lt=2**32)
    """Decides the split, and the augmentation that is shown."""
    size: Size = (128, 96)
    """Height x width in pixels that photographs are brought to; smaller ones are named."""
    report_photos: bool = True
    """Show photographs in dataset.html; `false` where people's faces may not travel."""


class SuspectsSettings(Settings):
    """suspects.py"""

    FOLDERS = ("sm_channel_train", "sm_output_data_dir")
    DEMO_DEFAULTS: ClassVar[dict] = {"pretrained": False, "size": "64x48"}

    sm_channel_train: InputFolder = DEMO_DATA / "train" / "images"
    """Folder of training photographs: the image folder itself, or its parent."""
    sm_output_data_dir: pathlib.Path = DEMO / "suspects"
    """Folder where `suspects.html` and `suspects.csv` go, with SERVE `corrections.csv`, and folds trained here."""
    sm_channel_model: InputFolder | None = None
    """Folder where runs are, or a run of folds, which is asked; unset trains folds here first."""
    name: str | None = None
    """Which run, of folds; unset takes the newest. Without SM_CHANNEL_MODEL the backbone; unset takes resnet18."""
    relabel: Corrections = "sure"
    """Corrections as in train.py. Whom they name has been decided on, and is not shown again."""
    serve: bool = False
    """Serve the page on this machine, until Ctrl-C, and write every decision to `corrections.csv` at once."""
    serve_port: Annotated[int, OnlyWith("serve", True)] = Field(0, ge=0, lt=2**16)
    """Port of the page that is served; 0 takes a free one."""

    folds: Annotated[int, OnlyWith("sm_channel_model", None)] = Field(3, ge=2)
    """Folds that are trained here."""
    epochs: Annotated[int, OnlyWith("sm_channel_model", None)] = Field(4, ge=1)
    """Passes of each fold over its photographs."""
    pretrained: Annotated[bool, OnlyWith("sm_channel_model", None)] = True
    """Start folds from torchvision's ImageNet weights."""
    size: Annotated[Size, OnlyWith("sm_channel_model", None)] = (128, 96)
    """Height x width in pixels for folds that are trained here."""
    seed: Annotated[int, OnlyWith("sm_channel_model", None)] = Field(42, ge=0, lt=2**32)
    """Decides who is in which fold, and the rest of their training."""
    device: Device = "auto"
    """`auto` takes CUDA, else MPS, else the CPU."""
    precision: Precision = "auto"
    """`auto` takes bf16 where the hardware has it, else fp32."""
    cache_gib: float = Field(8.0, ge=0)
    """Memory for decoded photographs; beyond it they lie in a file, or are decoded at each use."""
    cache_dir: pathlib.Path | None = None
    """Folder where decoded photographs are kept for later runs; unset keeps none."""

    def training(self) -> dict:
        """The settings of train.py that decide, with the labels, what folds come out that are trained here."""
        own = ("folds", "epochs", "pretrained", "size", "seed")
        return {name: getattr(self, name) for name in own} | {"name": self.name or "resnet18"}


class LeaderboardSettings(TrainSettings):
    """leaderboard.py"""

    FOLDERS = ("sm_channel_train", "sm_model_dir", "sm_channel_eval", "sm_ground_truth_dir", "sm_output_data_dir")
    DEMO_DEFAULTS = TrainSettings.DEMO_DEFAULTS | {"epochs": 1, "batch_size": 64}

    names: str = ""
    """Backbones, separated by commas; unset takes all 18."""
    sm_channel_eval: InputFolder = DEMO_DATA / "eval"
    """Folder that holds `images/` and `info.csv`."""
    sm_ground_truth_dir: InputFolder = DEMO_DATA / "eval"
    """Folder that holds `gt.csv`."""
    sm_output_data_dir: pathlib.Path = DEMO / "leaderboard"
    """Folder where `leaderboard.csv` and `leaderboard.md` go, and the files of each backbone."""

    def problems(self) -> list[str]:
        found = super().problems()
        if "name" in self.model_fields_set:
            found.append(f"NAME={self.name}: has no effect here; remove it, or set NAMES={self.name}")
        if self.sm_output_data_dir.resolve() == self.sm_model_dir.resolve():
            found.append(
                f"SM_OUTPUT_DATA_DIR={self.sm_output_data_dir}: expected another folder than SM_MODEL_DIR; both have a "
                "leaderboard.csv of their own"
            )
        if (self.folds and self.fold is None) or self.find_lr:
            found.append("FOLDS and FIND_LR: expected one run for each backbone; set FOLD too, or leave both unset")
        return found


class ExportSettings(Settings):
    """export.py"""

    FOLDERS = ("sm_channel_model",)

    sm_channel_model: InputFolder = DEMO / "runs"
    """Folder where runs are, or one run."""
    name: str | None = None
    """Which run, by the name of its folder; unset takes the newest. Several (`a,b`) and folds get a file each."""
    sm_output_data_dir: pathlib.Path | None = None
    """Folder where the files go, below it as below SM_CHANNEL_MODEL; unset puts each beside its weights."""
    sm_channel_train: InputFolder | None = None
    """Folder of the photographs that it was trained with, to try the file on; unset is where they were then."""


SCRIPTS = {
    "train.py": TrainSettings,
    "inference.py": InferenceSettings,
    "evaluation.py": EvaluationSettings,
    "dataset.py": DatasetSettings,
    "suspects.py": SuspectsSettings,
    "leaderboard.py": LeaderboardSettings,
    "export.py": ExportSettings,
}
