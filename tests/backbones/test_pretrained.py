"""The weights that a net starts from: how much of a file is taken, what is said of it, and which files are refused."""

import json
import os
import pathlib
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch
import torchvision
from conftest import QUICK, run_here, succeeded
from safetensors.torch import save_file

import dataset
import model
from toolkit.backbones import pretrained
from toolkit.data.split import held_out_people
from toolkit.runs import tensor_file
from toolkit.runs.fingerprint import differences
from toolkit.runs.weights import load_weights, read_header, save_weights
from toolkit.system import files
from toolkit.system.console import InputError

NAME, SIZE = "shufflenet_v2_x0_5", (32, 32)
HEAD = {"fc.weight", "fc.bias"}


def start_from(file: pathlib.Path, name: str = NAME, head: str = "flat") -> tuple[dict, model.Start]:
    """The state of a net that starts from this file, and what it says of it."""
    net, start = model.build(name, SIZE, str(file), head)
    return net.state_dict(), start


def equal(state: dict, other: dict, but: set[str] = frozenset()) -> bool:
    return all(torch.equal(state[key], other[key]) for key in other.keys() - but)


@pytest.fixture(scope="module")
def run(drawn, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("runs")
    before = torch.get_rng_state()
    done = run_here("train.py", SM_CHANNEL_TRAIN=drawn.train, SM_MODEL_DIR=folder, **QUICK | {"NAME": NAME})
    assert torch.equal(torch.get_rng_state(), before)  # a caller may draw the settings of its next trial
    assert done.returncode == 0, done.stderr
    return folder / NAME


@pytest.fixture(scope="module")
def imagenet() -> dict:
    """A state dict for 1,000 classes, as torchvision publishes them."""
    torch.manual_seed(1)
    return torchvision.models.get_model(NAME).state_dict()


def sevens(name: str) -> dict:
    """A state dict of a large net in a small file: one number, over and over."""
    with torch.device("meta"):
        state = torchvision.models.get_model(name).state_dict()
    return {key: torch.tensor(7.0).expand(value.shape) for key, value in state.items()}


def test_a_run_gives_all_its_weights_its_head_and_its_mean_and_std(run):
    file = run / "model.safetensors"
    state, header = load_weights(file)
    for path in (run, file):
        found, start = start_from(path)
        assert equal(found, state) and (start.mean, start.std) == (header.mean, header.std)
        assert start.pretrained == str(file) and start.taken["sha256"] == files.sha256(file)
        assert start.taken["head"] == "taken" and start.taken["taken"] == start.taken["tensors"] == len(state)


def test_a_run_of_another_head_or_other_classes_gives_its_backbone_alone(run, tmp_path):
    state, header = load_weights(run / "model.safetensors")
    found, start = start_from(run, head="factored")
    assert start.taken["head"] == "fresh" and start.taken["taken"] == len(state) - 2
    assert equal({key.removeprefix("net."): value for key, value in found.items()}, state, but=HEAD)
    save_weights(tmp_path / "model.safetensors", found, replace(header, head="factored"))
    again, start = start_from(tmp_path)
    assert start.taken["head"] == "fresh" and equal(again, state, but=HEAD)
    # 18 classes too, but others.
    plain = tensor_file.read_header(run / "model.safetensors")
    plain["classes"] = [*plain["classes"][1:], "another"]
    tensor_file.save(tmp_path / "model.safetensors", state, plain)
    found, start = start_from(tmp_path)
    assert start.taken["head"] == "fresh" and equal(found, state, but=HEAD)
    assert not torch.equal(found["fc.weight"], state["fc.weight"])


@pytest.mark.parametrize("form", ["pth", "safetensors", "nested", "parallel", "without counters"])
def test_a_plain_state_dict_gives_all_but_a_head_of_other_classes(form, imagenet, tmp_path):
    file = tmp_path / "net.pth"
    if form == "safetensors":
        save_file(imagenet, file := tmp_path / "net.safetensors")
    elif form == "nested":
        torch.save({"epoch": 3, "state_dict": imagenet}, file)
    elif form == "parallel":
        torch.save({f"module.{key}": value for key, value in imagenet.items()}, file)
    elif form == "without counters":
        torch.save({key: value for key, value in imagenet.items() if "num_batches" not in key}, file)
    else:
        torch.save(imagenet, file)
    found, start = start_from(file)
    assert equal(found, imagenet, but=HEAD)
    assert start.taken["missing"] == start.taken["unfit"] == [] and start.taken["head"] == "fresh"
    assert (start.mean, start.std) == (model.MEAN, model.STD)


def test_densenets_files_have_old_names_for_its_layers(tmp_path):
    state = sevens("densenet121")
    old = {key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value for key, value in state.items()}
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "densenet.pth")
    found, start = start_from(tmp_path / "densenet.pth", "densenet121")
    assert (found["features.denseblock1.denselayer1.conv2.weight"] == 7).all() and start.taken["missing"] == []


def test_what_is_missing_or_of_another_shape_is_said(imagenet, tmp_path):
    state = dict(imagenet)
    del state["conv1.1.bias"]
    state["conv1.0.weight"] = torch.zeros(24, 1, 3, 3)
    torch.save(state, tmp_path / "net.pth")
    _, start = start_from(tmp_path / "net.pth")
    assert (start.taken["missing"], start.taken["unfit"]) == (["conv1.1.bias"], ["conv1.0.weight"])
    words = f"{len(imagenet) - 4} of {len(imagenet)} tensors taken, the head is fresh; not in the file: conv1.1.bias; "
    assert pretrained.describe(start.taken) == words + "of another shape: conv1.0.weight"


def test_weights_of_another_net_are_refused_though_some_have_the_same_name_and_shape(run, tmp_path):
    torch.save(sevens("resnet50"), tmp_path / "net.pth")
    for name in ("resnet18", NAME):
        with pytest.raises(InputError, match=f"WEIGHTS={tmp_path}/net.pth: expected weights of this net, found 320"):
            model.build(name, SIZE, str(tmp_path / "net.pth"))
    with pytest.raises(InputError, match=f"tensors of {NAME}: set NAME to it"):
        model.build("resnet18", SIZE, str(run))


class Hostile:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize("content", [b"", b"half", Hostile(), [1, 2], {"a": 1}, {}, {1: torch.ones(2)}])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_damaged_hostile_or_no_state_dicts_are_refused_and_execute_nothing(
    content, suffix, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"net{suffix}"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(InputError, match=f"net{suffix}: expected a ") as error:
        model.build(NAME, SIZE, str(file))
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "executed").exists()


def test_a_published_file_is_held_against_the_hash_in_its_name(imagenet, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "shufflenetv2_x0.5-f707e7126e.pth"
    file.parent.mkdir(parents=True)
    torch.save(imagenet, file)
    with pytest.raises(InputError, match=f"{file}: expected a file whose SHA-256 begins with f707e7126e, as its name "):
        model.build(NAME, SIZE, "imagenet")
    assert file.exists()
    assert pretrained.hash_in_name(pathlib.Path("resnet18-f37072fd.pth")) == "f37072fd"
    assert pretrained.hash_in_name(pathlib.Path("my-net.pth")) == ""


def test_a_finished_run_is_continued_and_says_so(drawn, run, tmp_path):
    given = {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": tmp_path, "NAME": NAME, "WEIGHTS": run, "MIX": "none"}
    done = run_here("train.py", **{key: value for key, value in QUICK.items() if key != "PRETRAINED"} | given)
    succeeded(done)
    file, count = run / "model.safetensors", len(load_weights(run / "model.safetensors")[0])
    assert f"pretrained: {file} ({count} of {count} tensors taken, the head is taken)" in done.stdout
    assert "was trained on" not in done.stdout  # the same people are held out
    header = read_header(tmp_path / NAME / "model.safetensors")
    assert header.pretrained == str(file) and header.taken["sha256"] == files.sha256(file)
    made = json.loads((tmp_path / NAME / "settings.json").read_text())
    assert made["run"]["taken"] == header.taken and made["settings"]["lr"] == 5e-4
    before, after = (pd.read_csv(folder / "history.csv")["train_loss"][0] for folder in (run, tmp_path / NAME))
    assert after < before


def test_it_says_where_people_are_held_out_whom_the_weights_have_seen(drawn, run, tmp_path, capsys):
    everybody = tmp_path / "everybody"  # as VAL_RATIO=0 leaves it
    shutil.copytree(run, everybody, ignore=shutil.ignore_patterns("validation.csv"))
    record = json.loads((run / "settings.json").read_text())
    record["settings"]["val_ratio"] = 0.0
    (everybody / "settings.json").write_text(json.dumps(record))
    for weights, seed, seen in ((run, 42, False), (run, 1, True), (everybody, 42, True)):
        words = f"note: WEIGHTS={weights} was trained on " * seen
        table, _ = dataset.read_faces(drawn.train)
        held_out = held_out_people(table, 0.2, 0, 0, seed)
        pretrained.note_people_seen(str(weights), dataset.image_folder(drawn.train), set(held_out))
        said = capsys.readouterr().out
        assert said.startswith(words) and bool(said) == bool(words)


def test_a_run_of_the_same_file_is_found_again_and_one_of_another_file_is_a_new_run(drawn, imagenet, tmp_path):
    given = {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": tmp_path / "runs", "WEIGHTS": tmp_path / "net.pth"}
    given |= {key: value for key, value in QUICK.items() if key != "PRETRAINED"} | {"NAME": NAME}
    torch.save(imagenet, tmp_path / "net.pth")
    succeeded(run_here("train.py", **given))
    assert "this run was finished before" in run_here("train.py", **given).stdout
    torch.save(imagenet | {"conv1.1.bias": torch.ones(24)}, tmp_path / "net.pth")
    assert f"{NAME}-2" in run_here("train.py", **given).stdout
    before, now = (json.loads((tmp_path / "runs" / name / "settings.json").read_text()) for name in (NAME, f"{NAME}-2"))
    assert before["weights"] != now["weights"] == files.sha256(tmp_path / "net.pth")
    assert differences(before, now) == ["the file of WEIGHTS has changed"]
