"""Every setting of every script: name, type, default and description. `sources.read` fills them in.

Settings that several scripts have are in shared.py, as groups that the classes here inherit.
"""

import pathlib
from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from toolkit.config import conflicts, shared
from toolkit.config.shared import DEMO
from toolkit.config.types import Corrections, InputFile, InputFolder, NameOrPath, RunName, Weights, is_path
from toolkit.labels import AGE_FROM_YEARS, ATTRIBUTES, CLASSES, to_class

FALLBACK_CLASS = to_class(*({"gender": 1, "age": 1}.get(name, 0) for name in ATTRIBUTES))


class TrainSettings(
    shared.SplitTrainingData, shared.UnreadablePhotographs, shared.Hardware, shared.Preset, shared.HtmlPage
):
    """train.py"""

    FOLDERS = ("sm_channel_train", "sm_model_dir")
    # A small model from scratch, in about a minute on two cores: drawn faces need no ImageNet weights.
    DEMO_DEFAULTS: ClassVar[dict] = {"weights": "none", "size": "96x72", "epochs": 7}
    # Paths and limits: the task's digest holds what they select, so their own values are not compared.
    IN_DIGEST: ClassVar = ("decide_by", "sm_channel_pseudo", "pseudo_probabilities", "max_megapixels", "on_bad_image")
    # They say where and how fast a run is trained, and do not change its result: a run continues when they change.
    RUNTIME_ONLY: ClassVar[tuple[str, ...]] = (
        "sm_channel_train", "sm_model_dir", "run", "sm_checkpoint_dir", "checkpoint_seconds", "resume",
        "device", "cache_gib", "cache_dir", "compile", "report_photos", "pixelate", "tensorboard", "recipe", "settings",
        *IN_DIGEST,
    )  # fmt: skip

    sm_model_dir: pathlib.Path = DEMO / "runs"
    """Folder for runs; each run gets a folder of its own."""
    name: str = "resnet18"
    """Backbone, by its torchvision name, or `timm/` and its timm name."""
    run: RunName | None = None
    """Name of the run's folder in SM_MODEL_DIR; unset: NAME. If another run has that name: `RUN-2`, and so on."""
    weights: Weights = "imagenet"
    """Start from `imagenet`, `none`, a run, or a file (`.pth`, `.safetensors`). PRETRAINED=false is `none` too."""
    head: Literal["flat", "factored"] | None = None
    """`flat`: 18 logits; `factored`: logits of mask, gender and years of age; unset: by WEIGHTS, EPOCHS and LOSS."""
    epochs: int = Field(10, ge=1)
    """Passes over the training photographs."""
    batch_size: int = Field(32, ge=2)
    """Most photographs per step; an epoch is cut into equal batches. Larger values suit a GPU and long runs."""
    micro_batch_size: int | None = Field(None, ge=2)
    """Photographs per forward pass in each process, to save memory; unset: the process's whole part of the batch."""

    folds: int = Field(0, ge=0)
    """Number of cross-validation folds, by person; replaces VAL_RATIO. 0 is off."""
    fold: int | None = Field(None, ge=0)
    """The one fold to hold out, counted from 0; unset: train all folds, one after another."""
    final: bool = False
    """After FOLDS also train a net on everybody, in the folder `final`. Its EPOCHS: the folds' mean kept epoch."""
    sm_channel_pseudo: InputFolder | None = None
    """Folder of photographs, in its `images/` or in itself, that join training with pseudo-labels; unset: none."""
    pseudo_probabilities: InputFile | None = None
    """`probabilities.csv` that inference.py wrote for these photographs; unset: the one in SM_CHANNEL_PSEUDO."""
    pseudo_from: float = Field(0.7, gt=0, le=1)
    """Such a photograph joins if its most probable class has at least this probability."""
    augment: Literal["none", "flip", "light", "strong"] | None = None
    """Augmentation policy for training photographs; unset: by WEIGHTS and EPOCHS."""
    mix: Literal["none", "mixup", "cutmix"] | None = None
    """Mix half of the photographs: `mixup` blends two; `cutmix` joins halves; unset: by WEIGHTS, EPOCHS, LOSS."""
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    """`shuffle`: each photograph once per epoch; `balanced`: draws classes equally often, and people within a class."""
    border_ages: Literal["keep", "soften", "leave_out"] = "keep"
    """Ages 57 to 59 in training: keep the label, soften it towards 60 and over, or leave these people out."""

    loss: str | None = None
    """Loss, by its name in loss.py; unset: `label_smoothing`; HEAD=factored has a loss of its own."""
    smoothing: float = Field(0.1, gt=0, lt=1)
    """Share of the label that is spread over all classes; only with LOSS=label_smoothing."""
    gamma: float = Field(2.0, ge=0)
    """Exponent gamma of the focal loss; only with LOSS=focal."""
    tau: float = Field(1.0, gt=0, le=2)
    """tau in cross-entropy(logits + tau log priors), the loss; only with LOSS=logit_adjusted. 1 is balanced softmax."""
    class_weights: Literal["auto", "none", "sqrt", "balanced"] = "auto"
    """Loss weight of a class of n photographs: `sqrt` 1/sqrt(n), `balanced` 1/n; `auto`: by HEAD, SAMPLER and LOSS."""
    logit_adjustment: float = Field(0.5, ge=0, le=2)
    """tau in argmax(log p - tau log priors), the decision: 0 takes the likeliest class, 1 is best for mean recall."""
    decide_by: NameOrPath | None = None
    """Run of folds (name or path) whose predictions fit the decision; unset: none do. Only with VAL_RATIO=0."""

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """Optimizer; `sgd` has momentum 0.9."""
    lr: float | None = Field(None, gt=0)
    """Highest learning rate; unset: by optimizer, backbone and WEIGHTS."""
    weight_decay: float | None = Field(None, ge=0)
    """Weight decay, not for biases and norms; unset: by optimizer, backbone and WEIGHTS."""
    ema: bool | None = None
    """Validate and store the exponential moving average (EMA) of the weights; unset: by WEIGHTS and EPOCHS."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate schedule after the warm-up."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of all steps in which the learning rate rises to LR."""
    clip_grad: float = Field(1.0, ge=0)
    """Largest 2-norm of the gradient; 0 is off."""
    patience: int = Field(0, ge=0)
    """Stop after this many epochs without a better macro F1; 0 is off."""

    find_lr: bool = False
    """Learning rate range test instead of training: draw the loss over rising rates, and suggest a rate."""
    resume: Literal["auto", "never"] = "auto"
    """`auto`: continue an unfinished run of the same settings, photographs and code; `never`: start a new run."""
    checkpoint_seconds: float = Field(300, ge=0)
    """Seconds between saves of the training state; also saved after epochs that take 20 times as long as a save."""
    settings: pathlib.Path | None = None
    """`settings.json` of a run, to train the same again: its settings become defaults, except folders and RUN."""
    sm_checkpoint_dir: pathlib.Path | None = None
    """Folder for saved states, kept until the next run of that name begins; unset: SageMaker's, else the run folder."""
    compile: Literal["auto", "true", "false"] = "auto"
    """Compile the model for training (torch.compile); `auto`: only for long runs on CUDA."""
    tensorboard: bool = False
    """Also write scalars, pictures and hyperparameters for TensorBoard, into the folder tensorboard of the run."""

    def deciding(self) -> dict:
        """The settings that change the result of a run, as JSON types."""
        return self.model_dump(mode="json", exclude=set(self.RUNTIME_ONLY))

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from conflicts.in_training(self)


class InferenceSettings(shared.EvalData, shared.TrainedRuns, shared.Hardware, shared.Preset):
    """inference.py"""

    FOLDERS = ("sm_channel_eval", "sm_channel_model", "sm_output_data_dir")

    sm_output_data_dir: pathlib.Path = DEMO / "output"
    """Folder for `output.csv`."""
    ensemble: Literal["mean", "vote"] = "mean"
    """How to combine several runs: the mean of their probabilities, or a vote."""
    tta: bool = False
    """Test-time augmentation: average each photograph with its mirror image."""
    adapt_priors: bool = True
    """Estimate the priors of gender and age band on these photographs (EM, shrunk towards those of training)."""
    pool: Literal["none", "person"] = "none"
    """`person`: photographs with the same value in the column `person` of info.csv share their gender and age band."""
    old_from: int | None = Field(None, gt=AGE_FROM_YEARS[0], le=100)
    """First year of the oldest age band, for runs with HEAD=factored and RUNTIME=torch; unset: 60."""
    probabilities: bool = True
    """Also write `probabilities.csv`: ImageID, one column per class (p0 to p17), ans. evaluation.html uses it."""
    on_bad_image: Literal["stop", "fallback", "repair"] = "stop"
    """Unreadable photographs stop the script, or get FALLBACK_CLASS; `repair` reads JPEGs that lack only their end."""
    fallback_class: int = Field(FALLBACK_CLASS, ge=0, lt=CLASSES)
    """Class of an unreadable photograph; 4 is the most frequent in training (mask worn, female, 30 to 59)."""
    batch_size: int | None = Field(None, ge=1)
    """Photographs per batch; unset: chosen for the machine."""
    runtime: Literal["torch", "onnx"] = "torch"
    """`torch` runs the weights; `onnx` runs the `model.onnx` of export.py with onnxruntime, on the CPU."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from self.only_with("runtime", "torch", "old_from", "precision")
        if self.on_bad_image != "repair":
            yield from self.only_with("on_bad_image", "fallback", "fallback_class")
        if self.runtime == "onnx" and self.device not in ("auto", "cpu"):
            yield f"DEVICE={self.device}: RUNTIME=onnx runs on the CPU; remove it, or set RUNTIME=torch"


class ServingSettings(InferenceSettings):
    """The handlers of inference.py, which answer requests to an endpoint."""

    FOLDERS = ("sm_channel_model",)
    DEMO_MEANS = "taking the model of the drawn faces in"
    WHERE: ClassVar[str] = "an endpoint"
    # An endpoint gets a few photographs per request: they tell nothing about priors, and there is no file to write.
    WITHOUT_EFFECT: ClassVar[tuple[str, ...]] = (
        "adapt_priors", "probabilities", "on_bad_image", "fallback_class", "cache_gib", "cache_dir", "pool",
    )  # fmt: skip

    adapt_priors: bool = False
    """Off: priors cannot be estimated from a few photographs."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        for name in self.WITHOUT_EFFECT:
            if name in self.model_fields_set and getattr(self, name):  # ADAPT_PRIORS=false is what an endpoint does
                yield f"{name.upper()}: has no effect on {self.WHERE}; remove it"


class PhotographSettings(ServingSettings):
    """inference.py on photographs that its command line names."""

    WHERE = "photographs that are given by name"

    on_bad_image: Literal["stop", "fallback", "repair"] = "fallback"  # the others get their classes; this one gets none


class ServerSettings(ServingSettings):
    """serve.py"""

    WHERE = "a server"
    LEFT_OUT = ("sm_channel_eval", "sm_output_data_dir", *ServingSettings.WITHOUT_EFFECT)

    serve_host: str = "127.0.0.1"
    """Address to listen at; `0.0.0.0`: other machines can connect too, as a container needs it."""
    serve_port: int = Field(8080, ge=0, lt=2**16)
    """Port to listen at; 0: any free port."""
    serve_batch: int = Field(32, ge=1)
    """Most photographs that are predicted together; they may come from several requests."""
    serve_wait_ms: float = Field(5.0, ge=0, le=1000)
    """Most milliseconds that a photograph waits for others, to be predicted together with them."""


class EvaluationSettings(shared.GroundTruth, shared.HtmlPage):
    """evaluation.py"""

    FOLDERS = ("sm_ground_truth_dir", "sm_output_data_dir")

    sm_output_data_dir: InputFolder = DEMO / "output"
    """Folder that holds `output.csv`; `evaluation.json` and `evaluation.html` are written there."""


class DatasetSettings(shared.SplitTrainingData, shared.HtmlPage):
    """dataset.py"""

    FOLDERS = ("sm_channel_train", "sm_output_data_dir")

    sm_output_data_dir: pathlib.Path = DEMO / "dataset"
    """Folder for `dataset.html`."""


class SuspectsSettings(shared.TrainingData, shared.UnreadablePhotographs, shared.Hardware):
    """suspects.py"""

    FOLDERS = ("sm_channel_train", "sm_output_data_dir")
    DEMO_DEFAULTS: ClassVar[dict] = {"weights": "none", "size": "64x48"}
    FOLD_SETTINGS: ClassVar[tuple[str, ...]] = ("folds", "epochs", "weights", "size", "crop", "fit", "seed")

    sm_output_data_dir: pathlib.Path = DEMO / "suspects"
    """Folder for `suspects.html`, `suspects.csv`, the folds trained here and, with SERVE, `corrections.csv`."""
    sm_channel_model: InputFolder | None = None
    """Folder of runs, or one run of folds, whose nets predict out of fold; unset: train folds here first."""
    name: str | None = None
    """Name of the run of folds; unset: the newest finished. Without SM_CHANNEL_MODEL: the backbone; unset: resnet18."""
    relabel: Corrections = "sure"
    """Label corrections as in train.py. People whom they name count as decided and are not shown again."""
    folds: int = Field(3, ge=2)
    """Folds to train here. FOLDS, EPOCHS, WEIGHTS, SIZE, CROP, FIT and SEED: only without SM_CHANNEL_MODEL."""
    epochs: int = Field(4, ge=1)
    """Passes of each fold over its training photographs."""
    weights: Weights = "imagenet"
    """Weights that folds start from, as in train.py; not a run: it was trained on the people whom it would judge."""
    serve: bool = False
    """Serve the page on this machine until Ctrl-C; every decision is written to `corrections.csv` at once."""
    serve_port: int = Field(0, ge=0, lt=2**16)
    """Port of the served page; 0: any free port. Only with SERVE=true."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from self.only_with("sm_channel_model", None, *self.FOLD_SETTINGS)
        yield from self.only_with("serve", True, "serve_port")
        if is_path(self.weights) and pathlib.Path(self.weights).is_dir():
            yield f"WEIGHTS={self.weights}: expected imagenet, none or a state dict, found a run: it knows these people"

    def training(self) -> dict:
        """The settings of train.py that, together with the labels, determine the folds that are trained here."""
        return {name: getattr(self, name) for name in self.FOLD_SETTINGS} | {"name": self.name or "resnet18"}


class LeaderboardSettings(TrainSettings, shared.EvalData, shared.GroundTruth):
    """leaderboard.py"""

    FOLDERS = ("sm_channel_train", "sm_model_dir", "sm_channel_eval", "sm_ground_truth_dir", "sm_output_data_dir")
    DEMO_DEFAULTS = TrainSettings.DEMO_DEFAULTS | {"epochs": 1, "batch_size": 64}
    LEFT_OUT = ("name", "run")

    names: str = ""
    """Backbones, separated by commas; unset: all 18."""
    sm_output_data_dir: pathlib.Path = DEMO / "leaderboard"
    """Folder for `leaderboard.csv`, `leaderboard.md`, `leaderboard.html` and the files of each backbone."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if "name" in self.model_fields_set:
            yield f"NAME={self.name}: has no effect here; remove it, or set NAMES={self.name}"
        if "run" in self.model_fields_set:
            yield f"RUN={self.run}: has no effect here, where runs are called as their backbones; remove it"
        if self.sm_output_data_dir.resolve() == self.sm_model_dir.resolve():
            yield (
                f"SM_OUTPUT_DATA_DIR={self.sm_output_data_dir}: expected another folder than SM_MODEL_DIR; each has a "
                "leaderboard.csv of its own"
            )
        if self.decide_by:
            yield "DECIDE_BY: has no effect here, where backbones differ, as their folds would; remove it"
        if (self.folds and self.fold is None) or self.find_lr:
            yield "FOLDS and FIND_LR: expected one run for each backbone; set FOLD too, or leave both unset"


class ExportSettings(shared.TrainedRuns):
    """export.py"""

    FOLDERS = ("sm_channel_model",)

    sm_output_data_dir: pathlib.Path | None = None
    """Folder for the files, with the subfolders of SM_CHANNEL_MODEL; unset: each file beside its weights."""
    sm_channel_train: InputFolder | None = None
    """Folder of the training photographs, to test the file on; unset: the folder that the training used."""
    export: Literal["float32", "int8"] = "float32"
    """Number type in the file: `int8` is smaller and often faster; refused if it changes over 1 % of classes."""


SCRIPTS = {
    "train.py": TrainSettings,
    "inference.py": InferenceSettings,
    "evaluation.py": EvaluationSettings,
    "dataset.py": DatasetSettings,
    "suspects.py": SuspectsSettings,
    "leaderboard.py": LeaderboardSettings,
    "export.py": ExportSettings,
    "serve.py": ServerSettings,
}
