"""A run as one ONNX file: it predicts as the run does, alone and with RUNTIME=onnx; other files are refused."""

import json
import pathlib
import re
import shutil
import sys

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from conftest import ROOT, decode_file, refused, run_here, run_script, succeeded
from PIL import Image

import export
import model
from toolkit.config.settings import ExportSettings, ServingSettings
from toolkit.data.framing import Framing
from toolkit.labels import CLASS_NAMES, CLASSES, PROBABILITY_COLUMNS
from toolkit.runs.weights import Header, load_weights, save_weights
from toolkit.scoring.decision import Decision
from toolkit.scoring.prior_correction import PriorCorrection
from toolkit.serving.endpoint import Endpoint
from toolkit.system.console import InputError

SCORES = {"epoch": 1, "macro_f1": 0.5}  # of the header


@pytest.fixture(scope="module")
def both(trained, tmp_path_factory) -> pathlib.Path:
    """A folder of runs, in which the run resnet18 has been exported."""
    folder = tmp_path_factory.mktemp("exported") / "runs"
    shutil.copytree(trained, folder)
    done = succeeded(
        run_here("export.py", SM_CHANNEL_MODEL=folder, NAME="resnet18"),
        "ONNX opset 18, IR version 10, float32", "valid, says onnx", " on 12 photographs of ",
        " in batches of 1, ", " in batches of 3; the same classes", "written: ",
    )  # fmt: skip
    assert done.stderr == "" and len(done.stdout.splitlines()) == 4
    return folder


@pytest.fixture
def infer(drawn, tmp_path):
    def run(folder, **settings):
        folders = {"SM_CHANNEL_EVAL": drawn.eval, "SM_CHANNEL_MODEL": folder, "SM_OUTPUT_DATA_DIR": tmp_path / "out"}
        return run_here("inference.py", **folders, PROBABILITIES="true", **settings)

    return run


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Make a run of a small model, whose pooling windows differ in size, as they do not divide its map; its folder."""

    def small(outputs):
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, stride=8, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d((7, 2)), torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(56, outputs),
        )  # fmt: skip

    monkeypatch.setitem(model.OWN, "small", small)

    def make(name: str, head: str = "flat", spoil=lambda net: None, scores=SCORES) -> pathlib.Path:
        torch.manual_seed(1)
        net, _ = model.build("small", (40, 32), head=head)
        net(torch.randn(8, 3, 40, 32))  # sets the statistics of batch norm
        spoil(net)
        three = np.random.default_rng(0).dirichlet(np.full(CLASSES, 5.0), 3)
        smoothing = 0.1 if head == "flat" else 0.0
        decision = Decision(0.2, 0.5, PriorCorrection(*(tuple(map(float, row)) for row in three), smoothing))
        framing = Framing((40, 32), (0.1, 0.2, 0.9, 0.8), "pad")
        header = Header(name, "small", head, framing, (0.5, 0.4, 0.3), (0.25,) * 3, decision, dict(scores))
        (tmp_path / "runs" / name).mkdir(parents=True)
        save_weights(tmp_path / "runs" / name / "model.safetensors", net.state_dict(), header)
        return tmp_path / "runs" / name

    return make


@pytest.mark.parametrize("settings", [{}, {"TTA": "true"}])
def test_the_runtime_onnx_predicts_as_torch_does(both, infer, tmp_path, settings):
    answers, probabilities = [], []
    for runtime, precision in (("torch", "fp32"), ("onnx", "")):  # many CPUs compute in bf16
        done = succeeded(infer(both, RUNTIME=runtime, DEVICE="cpu", PRECISION=precision, **settings))
        assert ("onnxruntime" in done.stdout) == (runtime == "onnx")
        answers.append((tmp_path / "out" / "output.csv").read_bytes())
        probabilities.append(pd.read_csv(tmp_path / "out" / "probabilities.csv")[list(PROBABILITY_COLUMNS)])
    assert answers[0] == answers[1]
    assert np.abs(probabilities[0] - probabilities[1]).to_numpy().max() < 1e-5


def test_an_endpoint_answers_with_onnx_as_with_torch(both, drawn):
    content = next((drawn.eval / "images").iterdir()).read_bytes()
    records = []
    for runtime in ("torch", "onnx"):
        config = ServingSettings(sm_channel_model=both, name="resnet18", runtime=runtime, device="cpu")
        endpoint = Endpoint.load(config, both, model.load)
        records += endpoint.answer([endpoint.decode(content), endpoint.decode(b"")])
    assert records[1] == records[3] == {"error": "the photograph cannot be read: it is empty"}
    assert records[0]["class"] == records[2]["class"]
    np.testing.assert_allclose(records[0]["probabilities"], records[2]["probabilities"], atol=1e-5)


def test_the_file_alone_suffices(both, infer, drawn, tmp_path):
    succeeded(infer(both, RUNTIME="onnx", ADAPT_PRIORS="false"))
    expected = pd.read_csv(tmp_path / "out" / "probabilities.csv")
    alone = tmp_path / "elsewhere" / "resnet18" / "model.onnx"
    alone.parent.mkdir(parents=True)
    shutil.copy(both / "resnet18" / "model.onnx", alone)
    done = succeeded(infer(alone.parent.parent, RUNTIME="onnx", ADAPT_PRIORS="false"))
    assert "did not finish" not in done.stdout
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "probabilities.csv"), expected)
    # As somebody uses it who has nothing of this project.
    session = onnxruntime.InferenceSession(alone, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(metadata["classes"])) == CLASS_NAMES and json.loads(metadata["size"]) == [32, 32]
    photographs = np.stack(
        [decode_file(drawn.eval / "images" / name, Framing((32, 32))) for name in expected["ImageID"][:5]]
    )
    (found,) = session.run(None, {"photographs": photographs})
    assert found.dtype == np.float32
    assert np.abs(found - expected[list(PROBABILITY_COLUMNS)][:5].to_numpy()).max() < 1e-5
    assert str(ROOT).encode() not in alone.read_bytes()  # nor where its code lies


def test_the_lines_of_the_export_page_run(both, drawn, monkeypatch, tmp_path, capsys):
    (lines,) = re.findall(r"```python\n(import json\n.*?)```", (ROOT / "docs" / "export.md").read_text(), re.S)
    (tmp_path / "runs").symlink_to(both)
    shutil.copy(next((drawn.eval / "images").iterdir()), tmp_path / "face.jpg")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(lines, names)
    assert capsys.readouterr().out.strip() in CLASS_NAMES
    Image.open("face.jpg").save("face.png")
    crops = {"squeeze": (0.1, 0.2, 0.9, 0.8), "pad": (0.0, 0.0, 0.5, 1.0), "cover": (0.25, 0.25, 0.75, 0.75)}
    for fit, crop in crops.items():
        pixels = names["prepare"]("face.png", (64, 48), crop, fit)
        assert np.abs(decode_file("face.png", Framing((64, 48), crop, fit)).astype(int) - pixels).mean() < 0.5


def test_a_file_that_is_damaged_foreign_or_out_of_date_is_refused(both, infer, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(both, runs)
    file = runs / "resnet18" / "model.onnx"
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for damaged in (bytes(flipped), content[:-1], content[:99], b"", b"x" * 999):
        file.write_bytes(damaged)
        refused(infer(runs, RUNTIME="onnx"), "model.onnx: expected a whole file that export.py wrote, found a damaged")
    file.write_bytes(content)
    weights = file.with_name("model.safetensors")
    state, header = load_weights(weights)
    state["fc.bias"] += 1
    save_weights(weights, state, header)
    refused(infer(runs, RUNTIME="onnx"), "was made from other weights than model.safetensors beside it; run export.py")
    file.unlink()
    refused(infer(runs, RUNTIME="onnx"), "expected a run with a model.onnx in", "export.py makes that file")


def test_every_fold_gets_a_file_in_the_folder_that_is_set(tiny, infer, tmp_path):
    folder = tiny("many/fold-0", "factored").parent
    tiny("many/fold-1", "factored", spoil=lambda net: net.get_parameter("net.6.bias").data.add_(1))
    done = run_here("export.py", SM_CHANNEL_MODEL=folder.parent, NAME="many", SM_OUTPUT_DATA_DIR=tmp_path / "files")
    succeeded(done)
    assert done.stdout.count("12 drawn faces, as the run's own photographs are not here") == 2
    made = sorted((tmp_path / "files").rglob("*"))
    assert [str(path.relative_to(tmp_path / "files")) for path in made if path.is_file()] == [
        "many/fold-0/model.onnx", "many/fold-1/model.onnx",
    ]  # fmt: skip
    assert not list(folder.rglob("*.onnx"))
    answers = []
    for where, runtime in ((folder.parent, "torch"), (tmp_path / "files", "onnx")):
        done = succeeded(infer(where, NAME="many", RUNTIME=runtime, DEVICE="cpu", ENSEMBLE="vote"))
        answers.append((tmp_path / "out" / "output.csv").read_bytes())
    assert answers[0] == answers[1]
    shutil.copy(tmp_path / "files" / "many" / "fold-0" / "model.onnx", folder / "fold-0")
    refused(infer(folder, RUNTIME="onnx"), "expected a model.onnx for every net, found none in fold-1; run export.py")


class Strange(torch.nn.Linear):
    """A model with a function that ONNX does not have."""

    def __init__(self, outputs: int):
        super().__init__(3 * 40 * 32, outputs)

    def forward(self, photographs):
        return super().forward(torch.special.airy_ai(photographs.flatten(1)))


def test_a_file_that_fails_a_check_is_not_written(tiny, tmp_path, monkeypatch):
    def export(folder, **settings):
        done = run_here("export.py", SM_CHANNEL_MODEL=folder, **settings)
        assert not list(tmp_path.rglob("*.onnx")) and not list(tmp_path.rglob("*.part"))
        return done

    good = tiny("good")
    refused(export(tiny("broken", spoil=lambda net: net[6].bias.data.fill_(torch.nan))), "nan", "nothing is written")
    refused(export(good, SM_OUTPUT_DATA_DIR=good / "model.safetensors"), "SM_OUTPUT_DATA_DIR=", "folder to write to")
    refused(export(good, SM_CHANNEL_TRAIN=tmp_path), "SM_CHANNEL_TRAIN=", "found no such table; leave it unset")
    of_everybody = tiny("all", scores={"epoch": 1})  # which has no such table
    succeeded(run_here("export.py", SM_CHANNEL_MODEL=of_everybody, SM_CHANNEL_TRAIN=tmp_path))
    (tmp_path / "runs" / "all" / "model.onnx").unlink()
    (good / "validation.csv").write_text("path\nsomebody/mask1.jpg\n")
    refused(export(good, SM_CHANNEL_TRAIN=tmp_path), f"found no {tmp_path}/somebody/mask1.jpg; leave it unset")
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody" / "mask1.jpg").write_text("no photograph")
    refused(export(good, SM_CHANNEL_TRAIN=tmp_path), "somebody/mask1.jpg: cannot be read: ")
    monkeypatch.setitem(model.OWN, "small", Strange)
    refused(export(tiny("strange")), "small: torch ", "cannot translate this net to ONNX: ")


def test_int8_is_written_where_it_leaves_the_classes_as_they_are(tiny, drawn, infer, tmp_path, monkeypatch):
    run, images = tiny("small"), shutil.copytree(drawn.train, tmp_path / "images")
    for paths in export.calibration_photographs(ExportSettings(sm_channel_train=images), run):
        pathlib.Path(paths[0]).write_text("no photograph")  # training may have left such out

    def export_as(numbers: str, **settings):
        return run_here("export.py", SM_CHANNEL_MODEL=tmp_path / "runs", NAME="small", EXPORT=numbers, **settings)

    refused(
        export_as("int8"), "EXPORT=int8: expected the photographs of the training, to calibrate on, found no folder"
    )
    with monkeypatch.context() as patch:
        patch.setattr(export, "EQUAL_CLASSES", 1.01)
        done = export_as("int8", SM_CHANNEL_TRAIN=images)
        refused(done, "of classes are equal; expected 101%; nothing is written; leave EXPORT unset")
        assert not list(tmp_path.rglob("*.onnx"))
    monkeypatch.setattr(export, "EQUAL_CLASSES", 0.8)  # of a net that has learned nothing
    found = []
    for numbers, settings in {"float32": {}, "int8": {"SM_CHANNEL_TRAIN": images}}.items():
        done = succeeded(export_as(numbers, **settings))
        succeeded(infer(tmp_path / "runs", RUNTIME="onnx", ADAPT_PRIORS="false"))
        found.append(pd.read_csv(tmp_path / "out" / "probabilities.csv")[list(PROBABILITY_COLUMNS)].to_numpy())
    assert re.search(r"^int8 against float32 on \d\d photographs: \d+\.\d\d% of classes are equal;", done.stdout, re.M)
    assert b"QuantizeLinear" in (tmp_path / "runs" / "small" / "model.onnx").read_bytes()
    assert 0 < np.abs(found[0] - found[1]).max() < 0.1


def test_int8_passes_over_photographs_that_training_left_out(drawn, tmp_path):
    bad, good = tmp_path / "bad.jpg", str(next((drawn.eval / "images").iterdir()))
    bad.write_text("no photograph")
    assert len(export.decoded([good, str(bad), good], Framing((32, 32)), passes_over_bad=True)) == 2
    with pytest.raises(InputError, match=r"bad\.jpg: cannot be read"):
        export.decoded([good, str(bad)], Framing((32, 32)))


def test_missing_packages_are_named(drawn, trained, tmp_path):
    for package in ("onnxscript", "onnxruntime"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('it is not there')")
    advice = "which cannot be imported (it is not there); pip install -r requirements-extras.txt"
    folders = {"SM_CHANNEL_MODEL": trained, "PYTHONPATH": tmp_path}
    done = run_script("export.py", python=sys.executable, **folders)
    refused(done, f"export.py: expected the package onnxscript, {advice}")
    folders |= {"SM_CHANNEL_EVAL": drawn.eval, "SM_OUTPUT_DATA_DIR": tmp_path / "out"}
    done = run_script("inference.py", python=sys.executable, RUNTIME="onnx", **folders)
    refused(done, f"RUNTIME=onnx: expected the package onnxruntime, {advice}")


def test_settings_without_effect_on_the_runtime_onnx_are_refused(both, infer):
    done = infer(both, RUNTIME="onnx", DEVICE="cuda", PRECISION="bf16", OLD_FROM="58")
    refused(
        done, "DEVICE=cuda: RUNTIME=onnx runs on the CPU", "PRECISION: has no effect with RUNTIME=onnx; remove it",
        "OLD_FROM: has no effect with RUNTIME=onnx; remove it, or set RUNTIME=torch",
    )  # fmt: skip
