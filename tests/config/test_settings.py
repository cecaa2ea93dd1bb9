"""Settings from flags, environment and hyperparameters, as users and both SageMaker launchers give them."""

import pathlib

import pytest
from pydantic import ValidationError

import loss
from toolkit.config import defaults, presets, settings, sources, synonyms
from toolkit.config.settings import EvaluationSettings, InferenceSettings, TrainSettings
from toolkit.config.types import as_text, the_word, words_of
from toolkit.data import augment
from toolkit.system.console import InputError
from toolkit.training import optimizer

pytestmark = pytest.mark.usefixtures("nothing_set")


@pytest.fixture
def given(monkeypatch, tmp_path):
    """Set variables, read the settings of train.py on an existing folder."""

    def read(*argv, **variables):
        for name, value in {"SM_CHANNEL_TRAIN": tmp_path, "SM_MODEL_DIR": tmp_path, **variables}.items():
            monkeypatch.setenv(name, str(value))
        return sources.read(TrainSettings, list(argv), {"name": ("resnet18", "resnet34", "vgg11"), "loss": loss.LOSSES})

    return read


def test_flag_wins_over_environment_over_hyperparameter_over_default(given):
    settings, origin = given(
        "--seed", "1", SEED=2, EPOCHS=3, SM_HP_SEED=4, SM_HP_EPOCHS=5, SM_HP_BATCH_SIZE=6, SM_HPS='{"patience": 7}'
    )
    assert (settings.seed, settings.epochs, settings.batch_size, settings.patience) == (1, 3, 6, 7)
    found = [origin[name] for name in ("seed", "epochs", "batch_size", "patience", "folds")]
    assert found == ["flag", "environment", "hyperparameter", "hyperparameter", "default"]


@pytest.mark.parametrize("name", ["epochs", "EPOCHS", "Epochs"])
def test_variables_in_any_case(given, name):
    assert given(**{name: 3})[0].epochs == 3


@pytest.mark.parametrize(
    "argv",
    [
        ["--batch_size", "32"], ["--batch-size", "32"], ["--batch_size=32"], ["--BATCH-SIZE", "32"],
        ["--batch-size", "32.0"], ["--batch-size", "32", "--_tuning_objective_metric", "f1"],
        ["--batch-size", "32", "--sagemaker_program", "train.py", "--patience", ""],
    ],
)  # fmt: skip
def test_flags_in_both_spellings_and_without_those_of_the_platform(given, argv):
    assert given(*argv)[0].batch_size == 32


@pytest.mark.parametrize("name", ["SM_HP_BATCH_SIZE", "SM_HP_BATCH-SIZE", "SM_HP_batch-size"])
def test_hyperparameters_in_every_spelling_of_the_launchers(given, name):
    assert given(**{name: "32"})[0].batch_size == 32


def test_typed_hyperparameters(given):
    settings, _ = given(SM_HPS='{"size": [160, 120], "pretrained": false, "lr": 1000.0, "fold": null, "_x": 1}')
    assert (settings.size, settings.weights, settings.lr, settings.fold) == ((160, 120), "none", 1000.0, None)


@pytest.mark.parametrize("value", ["128x96", "128X96", "128 96", "128,96", "[128, 96]", "(128, 96)", " 128 x 96 "])
def test_a_size_in_every_spelling(given, value):
    assert given(SIZE=value)[0].size == (128, 96)
    assert given("--size", *value.split())[0].size == (128, 96)


@pytest.mark.parametrize("value", ["0.1,0.2,0.9,0.8", "0.1 0.2 0.9 0.8", "[0.1, 0.2, 0.9, 0.8]", "(.1, .2, .9, .8)"])
def test_a_crop_in_every_spelling(given, value):
    assert given(CROP=value)[0].crop == given("--crop", *value.split())[0].crop == (0.1, 0.2, 0.9, 0.8)
    config, origin = given(CROP=value, SM_HPS='{"fit": "pad"}')
    lines = sources.describe(config, origin)
    assert [line.split()[1] for line in lines if line.split()[0] in ("crop", "fit")] == ["0.1,0.2,0.9,0.8", "pad"]
    assert given(CROP=str(config.model_dump(mode="json")["crop"]))[0].crop == config.crop  # as in settings.json


def test_a_wrong_crop_is_refused_in_one_line(given):
    with pytest.raises(
        InputError, match=r"^CROP=0\.9,0,0\.1,1: expected auto, or top,left,bottom,right as shares of [^\n]+$"
    ):
        given(CROP="0.9,0,0.1,1")


@pytest.mark.parametrize("value", ["128", "[128]", "128x96x3", "12896", "axb", "128x-96", "8x6", "99999x96"])
def test_a_wrong_size_is_refused(given, value):
    with pytest.raises(InputError, match="SIZE=.*expected height and width"):
        given(SIZE=value)


@pytest.mark.parametrize(("value", "expected"), [("True", True), ("true", True), ("False", False), ("0", False)])
def test_explicit_booleans(given, value, expected):
    assert given("--ema", value)[0].ema is expected
    settings, origin = given("--pretrained", value)
    assert (settings.weights, origin["weights"]) == ("imagenet" if expected else "none", "flag")
    assert given(PRETRAINED=value, WEIGHTS=settings.weights)[0] == settings


def test_weights_are_a_word_the_folder_of_a_run_or_a_file(given, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for file in (run / "model.safetensors", tmp_path / "net.pth", tmp_path / "net.zip"):
        file.touch()
    for value in (run, run / "model.safetensors", tmp_path / "net.pth", "none"):
        assert given(WEIGHTS=value)[0].weights == str(value)
    assert given(WEIGHTS="ImageNet")[0].weights == "imagenet"
    folds = tmp_path / "folds" / "fold-0"
    folds.mkdir(parents=True)
    (folds / "model.safetensors").touch()
    for value, found in (
        ("resnet18", "nothing there"), (tmp_path / "net.zip", "a file of another kind, net.zip"),
        (tmp_path, "a folder without model.safetensors"), (folds.parent, f"name one of them, {folds}"),
    ):  # fmt: skip
        expected = f"WEIGHTS={value}: expected imagenet, none, the folder of a run, or a state dict .*, found .*{found}"
        with pytest.raises(InputError, match=expected):
            given(WEIGHTS=value)
    with pytest.raises(ValidationError, match="WEIGHTS=.*found a run: it knows these people"):
        settings.SuspectsSettings(weights=str(run))


def test_values_as_shells_containers_and_word_processors_bring_them(given, tmp_path, monkeypatch):
    """A file of variables keeps quotes, blanks, ~ and Windows line ends; no shell expands a ~ after a comma."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "faces").mkdir()
    (tmp_path / "own.csv").touch()
    (tmp_path / "net.pth").touch()
    settings, origin = given(
        "--size", '"128x96"\r', SM_CHANNEL_TRAIN="'~/faces'\r", SM_MODEL_DIR='"~/runs" ', NAME="\u201cResNet18\u201d",
        EPOCHS="'3'\r", EMA="TRUE\r", DEVICE="CPU", OPTIMIZER="AdamW", LOSS=" Focal", RELABEL="Sure, ~/own.csv",
        WEIGHTS="~/net.pth", LR='""', SM_HPS='{"augment": "\\"Strong\\"", "compile": true}',
    )  # fmt: skip
    assert (settings.sm_channel_train, settings.sm_model_dir) == (tmp_path / "faces", tmp_path / "runs")
    assert (settings.name, settings.size, settings.epochs, settings.ema) == ("resnet18", (128, 96), 3, True)
    assert (settings.device, settings.optimizer, settings.loss, settings.lr) == ("cpu", "adamw", "focal", None)
    assert (settings.augment, settings.compile, origin["lr"]) == ("strong", "true", "default")
    assert (settings.relabel, settings.weights) == (f"sure,{tmp_path}/own.csv", f"{tmp_path}/net.pth")
    assert given(SM_CHANNEL_TRAIN=tmp_path, DEVICE="cuda:0", NAME="", WEIGHTS="")[0].device == "cuda"
    assert presets.read_recipe("QUICK") == presets.read_recipe("quick")
    assert sources.read(EvaluationSettings, ["--report-photos", "'No'"])[0].report_photos is False


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DEVICE": "cuda:1"}, "DEVICE=cuda:1: .* for one of several GPUs set CUDA_VISIBLE_DEVICES=1"),
        ({"SM_HPS": '{"epochs": true}'}, "EPOCHS=true: expected a number, found true"),
        ({"SM_HPS": '{"lr": false}'}, "LR=false: expected a number, found false"),
        ({"OPTIMIZER": "ad\u200bam"}, r"OPTIMIZER='ad\\u200bam': expected 'adamw', 'adam' or 'sgd'"),
        ({"SM_MODEL_DIR": "/tmp/ru\rns"}, r"SM_MODEL_DIR='/tmp/ru\\rns': expected a path without control characters"),
        (
            {"SM_MODEL_DIR": "s3://bucket/runs"},
            "SM_MODEL_DIR=s3://bucket/runs: expected a folder or file of this machine",
        ),
        ({"EPOCHS": '"3'}, 'EPOCHS="3: '),
        ({"RUN": "a\nb"}, r"RUN='a\\nb': expected the name of a new folder"),
    ],
)
def test_values_that_are_not_plain_are_refused_with_what_is_in_them(given, variables, expected):
    with pytest.raises(InputError, match=f"^{expected}"):
        given(**variables)


def test_what_launchers_set_is_no_setting_of_ours(given, monkeypatch):
    """Kubernetes' variable of a service called `serve`, and the flag of deepspeed and torch.distributed.launch."""
    monkeypatch.setenv("SERVE_PORT", "tcp://10.96.12.7:8080")
    assert sources.read(settings.ServerSettings, [])[0].serve_port == 8080
    assert given("--local_rank=0")[0].epochs == 10


def test_settings_pass_through_a_command_line_also_where_a_folder_begins_with_a_dash(given):
    flags = sources.as_flags({"sm_model_dir": "-runs", "size": (64, 48), "report_photos": False})
    found = given(*flags)[0]
    assert (str(found.sm_model_dir), found.size, found.report_photos) == ("-runs", (64, 48), False)


@pytest.mark.parametrize("value", ["", "  ", "null"])
def test_an_empty_value_counts_as_unset(given, value):
    settings, origin = given("--lr", value, EPOCHS=value)
    assert (settings.epochs, settings.lr, origin["epochs"]) == (10, None, "default")


def test_all_wrong_settings_are_reported_at_once(given):
    with pytest.raises(InputError) as error:
        given("--gama", "1", "stray", EPOCHS=0, LR="abc", SIZE=128, NAME="resnet19", PRETRAINED="maybe", SEED="-1")
    lines = str(error.value).split("\n")
    assert len(lines) == 7
    for words in ("did you mean gamma?", "EPOCHS=0", "LR=abc", "SIZE=128", "PRETRAINED=maybe", "SEED=-1"):
        assert any(words in line for line in lines), words
    assert any("NAME=resnet19" in line and "resnet18" in line and "some systems set NAME" in line for line in lines)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"GAMMA": 1}, "GAMMA: has no effect where LOSS is unset"),
        ({"SMOOTHING": 0.1, "LOSS": "focal"}, "SMOOTHING: has no effect"),
        (
            {"PRETRAINED": "false", "WEIGHTS": "imagenet"},
            "PRETRAINED=false and WEIGHTS=imagenet: expected one of them; remove PRETRAINED",
        ),
        ({"FOLDS": 5, "VAL_RATIO": 0.2}, "VAL_RATIO: has no effect with FOLDS=5"),
        ({"FOLD": 1}, "FOLD=1: has no effect without FOLDS"),
        ({"PATIENCE": 2, "VAL_RATIO": 0}, "PATIENCE=2: has no effect with VAL_RATIO=0, as nothing is validated"),
        ({"HEAD": "factored", "CLASS_WEIGHTS": "sqrt"}, "CLASS_WEIGHTS=sqrt: counts classes, but HEAD=factored"),
        ({"HEAD": "factored", "LOSS": "logit_adjusted"}, "LOSS: has no effect with HEAD=factored"),
        (
            {"SAMPLER": "balanced", "LOSS": "logit_adjusted"},
            "SAMPLER=balanced: LOSS=logit_adjusted corrects for rare",
        ),
        ({"LOSS": "focal", "CLASS_WEIGHTS": "sqrt"}, "CLASS_WEIGHTS=sqrt: with LOSS=focal the decision cannot correct"),
        ({"LOSS": "focal", "CLASS_WEIGHTS": "balanced"}, "set SAMPLER=balanced in their place, or LOSS"),
        ({"RELABEL": "Shure"}, "RELABEL=Shure: expected sure, all, none or the path"),
        ({"RELABEL": f"sure, {__file__},no.csv,"}, "with commas between them; found no such file: 'no.csv', ''"),
        ({"RELABEL": "sure,none"}, "RELABEL=sure,none: expected none alone, found it beside sure"),
        ({"EPOCHS": 2, "epochs": 1}, "EPOCHS=2 and epochs=1: expected one value, found several"),
        ({"SM_HPS": '{"name": ["vgg11"]}'}, "NAME=['vgg11']: expected one of"),
        ({"FOLDS": 5, "FOLD": 5}, "FOLD=5: expected less than FOLDS=5"),
        ({"FOLDS": 1}, "FOLDS=1: expected 0 (off) or 2 and more"),
        ({"PSEUDO_FROM": 0.8}, "PSEUDO_FROM=0.8: has no effect without SM_CHANNEL_PSEUDO"),
        ({"SM_CHANNEL_PSEUDO": ".", "PSEUDO_PROBABILITIES": "/nowhere"}, "expected a file, found nothing there"),
        ({"FINAL": "true"}, "FINAL=true: expected all folds before it; set FOLDS, and leave FOLD unset"),
        ({"FINAL": "true", "FOLDS": 3, "FOLD": 1}, "FINAL=true: expected all folds before it"),
        ({"SM_HPS": "[1]"}, "SM_HPS=[1]: expected a JSON object"),
        ({"SM_CHANNEL_TRAIN": "/nowhere"}, "SM_CHANNEL_TRAIN=/nowhere: expected a folder, found nothing there"),
        ({"SM_CHANNEL_TRAIN": __file__}, "expected a folder, found a file there"),
        ({"SM_MODEL_DIR": ""}, "SM_MODEL_DIR: expected a folder, found nothing set"),
        *(
            ({"RUN": name}, f"RUN={name}: expected the name of a new folder")
            for name in ("a/b", "../a", "a\\b", ".a", "a,b", "é" * 101, "fold-0", "final", "leaderboard")
        ),
    ],
)
def test_settings_that_conflict_are_refused(given, variables, expected):
    with pytest.raises(InputError) as error:
        given(**variables)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("cls", "other", "dependent"),
    [
        (TrainSettings, {"loss": "f1"}, {"smoothing": 0.2, "gamma": 1, "tau": 0.5}),
        (TrainSettings, {"folds": 2}, {"val_ratio": 0, "decide_by": "resnet18"}),
        (InferenceSettings, {"runtime": "onnx"}, {"old_from": 58, "precision": "bf16"}),
        (InferenceSettings, {"on_bad_image": "stop"}, {"fallback_class": 3}),
        (settings.SuspectsSettings, {"serve": False}, {"serve_port": 8000}),
        (
            settings.SuspectsSettings, {"sm_channel_model": "."},
            {"folds": 2, "epochs": 1, "weights": "none", "size": "64x48", "seed": 1},
        ),
        (
            settings.ServingSettings, {},
            {
                "adapt_priors": True, "probabilities": True, "on_bad_image": "stop", "cache_gib": 1, "cache_dir": "c",
                "pool": "person",
            },
        ),
    ],
)  # fmt: skip
def test_settings_without_effect_are_refused(cls, other, dependent):
    cls(**other)
    for name, value in dependent.items():
        with pytest.raises(ValidationError, match=rf"\b{name.upper()}(={as_text(value)})?: has no effect "):
            cls(**other, **{name: value})


def test_a_word_is_taken_in_its_own_case_or_in_that_of_the_only_one_alike():
    words = ["net", "Net", "Focal"]
    assert [the_word(word, words) for word in ("Net", "net", "focal", "FOCAL")] == ["Net", "net", "Focal", "Focal"]
    assert the_word("NET", words) == "NET"  # which is refused


def test_a_loss_of_ones_own_may_take_any_keyword(given, monkeypatch):
    monkeypatch.setitem(loss.LOSSES, "mine", loss.focal)
    assert given(LOSS="mine", GAMMA=3, TAU=0.5, SMOOTHING=0.2)[0].gamma == 3


@pytest.mark.parametrize(
    "given_value",
    [{"LR": "nan"}, {"LR": "inf"}, {"LR": "0"}, {"VAL_RATIO": "1"}, {"SEED": str(2**64)}, {"FOLDS": "-2"}],
)
def test_values_out_of_range_are_refused(given, given_value):
    with pytest.raises(InputError, match=next(iter(given_value))):
        given(**given_value)


def test_flags_need_a_value_and_cannot_be_abbreviated(given):
    with pytest.raises(InputError, match="--pretrained: expected a value after it"):
        given("--pretrained", "--seed", "1")
    with pytest.raises(InputError, match=r"epo \(flag\): there is no such setting"):
        given("--epo", "1")


def test_hyperparameters_of_other_scripts_of_the_job_and_empty_ones_are_ignored(given):
    settings, _ = given(SM_HPS='{"probabilities": true, "epochs": 3}', SM_HP_EPOCHS="", epochs="4", EPOCHS="4")
    assert settings.epochs == 4
    assert given(SM_HPS='{"epochs": 3}', SM_HP_EPOCHS="", epochs="", EPOCHS="")[0].epochs == 3
    # As the classic launcher gives them: as flags too.
    assert given("--probabilities", "True", "--epochs", "5", SM_HPS='{"probabilities": true}', EPOCHS="")[0].epochs == 5
    with pytest.raises(InputError, match=r"epocs \(hyperparameter\): there is no such setting; did you mean epochs"):
        given(SM_HPS='{"epocs": 3}')


def test_near_misses_are_shown_beside_errors(given, capsys):
    with pytest.raises(InputError):
        given(SM_CHANNEL_TRAIN="", SM_CHANNEL_TRAINING="/data")
    assert "SM_CHANNEL_TRAINING is set but is not a setting; did you mean sm_channel_train" in capsys.readouterr().err
    given(SM_CHANNEL_CODE="/code", SM_CHANNEL_SM_DRIVERS="/drivers", SM_CHANNEL_TRAINING="")  # SageMaker's own
    assert "SM_CHANNEL_CODE" not in capsys.readouterr().err


def test_near_misses_give_a_warning_but_not_names_of_the_platform():
    warned = sources.near_misses(
        {"EPOCHES": "3", "BATCHSIZE": "3", "SM_CHANNEL_TRAINING": "/", "epochs": "3", "SM_OUTPUT_DIR": "/", "HOME": "/",
         "SM_MODULE_DIR": "/", "SM_CHANEL_TRAIN": "/", "SM_OUTPUT_DATADIR": "/",
         "SM_CHANNEL_EVAL": "/", "HOSTNAME": "x", "LOGNAME": "x", "PATH": "/", "SM_HP_EPOCHS": "3", "TERM": "x"}
    )  # fmt: skip
    assert [line.split()[0] for line in warned] == [
        "BATCHSIZE", "EPOCHES", "SM_CHANEL_TRAIN", "SM_CHANNEL_TRAINING", "SM_OUTPUT_DATADIR"
    ]  # fmt: skip
    assert "did you mean epochs?" in warned[1]


def test_what_other_toolkits_call_a_setting_is_a_note_that_names_ours(given, capsys):
    """Only where the name can mean nothing else: other programs have variables, too."""
    others = {"LEARNING_RATE": "1", "Img_Size": "64", "AMP": "1", "NUM_WORKERS": "8", "MODEL": "x", "VAL_SPLIT": ".1"}
    given(**others, NAME="resnet34")
    said = capsys.readouterr().err
    for line in (
        "LEARNING_RATE is set but is not a setting here; LR is", "Img_Size is set but is not a setting here; SIZE is",
        "AMP is set but is not a setting here; PRECISION is",
        "VAL_SPLIT is set but is not a setting here; VAL_RATIO is",
        "NUM_WORKERS is set but is not a setting here: photographs are decoded once",
    ):  # fmt: skip
        assert f"warning: {line}" in said
    assert "MODEL" not in said  # NAME is set: it is for something else
    assert sources.near_misses(others, settings.EvaluationSettings.model_fields) == []
    with pytest.raises(InputError, match=r"label_smoothing \(flag\): there is no such setting here; SMOOTHING is"):
        given("--label_smoothing", "0.1")
    assert not synonyms.ALL & sources.ALL_NAMES and set(synonyms.SETTING_OF.values()) < sources.ALL_NAMES


def test_without_folders_it_is_the_drawn_faces_and_their_defaults_which_a_flag_overrides(capsys):
    settings, origin = sources.read(TrainSettings, ["--epochs", "1"])
    assert settings.demo and settings.weights == "none" and settings.epochs == 1
    assert (origin["weights"], origin["epochs"]) == ("drawn faces", "flag")
    assert sources.read(TrainSettings, ["--pretrained", "true"])[0].weights == "imagenet"
    assert capsys.readouterr().out.startswith("no folder is set: working on drawn faces in ")
    assert sources.read(InferenceSettings, [])[0].demo and sources.read(EvaluationSettings, [])[0].demo


def test_lists_begin_with_folders_and_settings_of_the_script_itself():
    assert TrainSettings.in_order()[:4] == ["sm_channel_train", "sm_model_dir", "name", "run"]
    assert TrainSettings.in_order()[-1] == "pixelate"
    for cls in settings.SCRIPTS.values():
        assert sorted(cls.in_order()) == sorted(cls.model_fields)
        assert all(field.description for field in cls.model_fields.values())
    assert [name for name, _ in EvaluationSettings()] == [
        "sm_ground_truth_dir", "sm_output_data_dir", "report_photos", "pixelate",
    ]  # fmt: skip


def test_settings_are_frozen_and_folders_are_paths(given, tmp_path):
    settings, _ = given()
    assert settings.sm_channel_train == pathlib.Path(tmp_path) and not settings.demo and settings.weights == "imagenet"
    with pytest.raises(ValueError, match="frozen"):
        settings.epochs = 5


def test_every_named_policy_and_optimizer_is_a_choice_and_has_its_defaults():
    fields = settings.TrainSettings.model_fields
    assert words_of(fields["augment"].annotation) == list(augment.POLICIES)
    assert words_of(fields["optimizer"].annotation) == list(optimizer.OPTIMIZERS) == list(defaults.OPTIMIZER_DEFAULTS)


@pytest.mark.parametrize("folder", ["", "cache", "images/../images/cache"])
def test_a_cache_in_a_data_folder_is_refused(tmp_path, folder):
    (tmp_path / "images").mkdir()
    given = {"sm_channel_train": tmp_path, "sm_model_dir": tmp_path / "runs", "cache_dir": tmp_path / folder}
    with pytest.raises(ValidationError, match="CACHE_DIR=.*: expected a folder outside of SM_CHANNEL_TRAIN"):
        settings.TrainSettings(**given)
    with pytest.raises(ValidationError, match="CACHE_DIR=.*: expected a folder outside of SM_CHANNEL_PSEUDO"):
        settings.TrainSettings(**given | {"sm_channel_train": ".", "sm_channel_pseudo": tmp_path})
    settings.TrainSettings(**given | {"cache_dir": tmp_path.parent / "cache"})


def test_compile_takes_booleans_as_sagemaker_passes_them():
    assert [settings.TrainSettings(compile=value).compile for value in (True, "True", "false", "auto")] == [
        "true", "true", "false", "auto"
    ]  # fmt: skip


def test_a_run_is_called_as_its_backbone_unless_run_says_otherwise(given):
    def called(**variables) -> tuple[str, str]:
        settings, origin = defaults.resolve(*given(**variables))
        return settings.run, origin["run"]

    assert called() == ("resnet18", "NAME")
    assert called(NAME="vgg11", RUN="") == ("vgg11", "NAME")
    assert called(RUN="누구 fold-0 (2)") == ("누구 fold-0 (2)", "environment")
    settings, origin = given(RUN="")
    assert defaults.resolve(settings.model_copy(update={"name": "timm/tiny_vit"}), origin)[0].run == "timm-tiny_vit"


@pytest.mark.parametrize(
    ("variables", "expected", "source"),
    [
        ({}, ("factored", "strong", "mixup", True), "WEIGHTS, EPOCHS"),
        ({"EPOCHS": 6}, ("factored", "strong", "mixup", True), "WEIGHTS, EPOCHS"),
        ({"EPOCHS": 5}, ("flat", "light", "none", False), "WEIGHTS, EPOCHS"),
        ({"WEIGHTS": "none"}, ("flat", "light", "none", False), "WEIGHTS, EPOCHS"),
        ({"LOSS": "focal"}, ("flat", "strong", "none", True), "LOSS"),
        ({"CLASS_WEIGHTS": "none"}, ("flat", "strong", "none", True), "LOSS"),
        ({"CLASS_WEIGHTS": "auto"}, ("factored", "strong", "mixup", True), "WEIGHTS, EPOCHS"),
        ({"HEAD": "flat"}, ("flat", "strong", "mixup", True), "environment"),
        ({"WEIGHTS": "none", "HEAD": "factored", "EMA": "true"}, ("factored", "light", "none", True), "environment"),
    ],
)
def test_the_recipe_follows_from_where_the_net_starts_and_leaves_a_loss_that_is_given_alone(
    given, variables, expected, source
):
    settings, origin = defaults.resolve(*given(**variables))
    assert (settings.head, settings.augment, settings.mix, settings.ema, origin["head"]) == (*expected, source)
