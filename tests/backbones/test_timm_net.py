"""timm's nets: their names, their trained weights from its cache, and the whole way from training to ONNX."""

import pathlib
import sys

import huggingface_hub
import pandas as pd
import pytest
import timm
import torch
from conftest import QUICK, refused, run_here, succeeded
from safetensors.torch import save_file

import model
from toolkit.backbones import timm_net
from toolkit.runs.weights import read_header
from toolkit.system import files
from toolkit.system.console import InputError

RESNET, VIT = "timm/test_resnet", "timm/test_vit"  # of 0.4 million weights, made for tests


@pytest.fixture
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    """An empty cache of Hugging Face's, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def fill(cache: pathlib.Path, name: str) -> tuple[pathlib.Path, dict]:
    """Put trained weights of this net into the cache: their file, and the state dict in it."""
    repository = timm.get_pretrained_cfg(name).hf_hub_id
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("1" * 40)
    (folder / "snapshots" / ("1" * 40)).mkdir(parents=True)
    torch.manual_seed(1)
    state = timm.create_model(name).state_dict()
    save_file(state, folder / "snapshots" / ("1" * 40) / "model.safetensors")
    return folder / "snapshots" / ("1" * 40) / "model.safetensors", state


def test_the_names_are_those_of_timms_registry_and_its_tags():
    assert set(timm_net.names(RESNET)) == {f"timm/{name}" for name in timm.list_models()}
    assert all(f"timm/{name}" in model.names(f"timm/{name}") for name in timm.list_pretrained("*resnet18*"))
    assert "timm/test_resnet.none" not in model.names("timm/test_resnet.none")
    assert not any(name.startswith("timm/") for name in model.names())


def test_an_unknown_name_and_a_missing_package_are_refused(drawn, tmp_path, monkeypatch):
    given = QUICK | {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": tmp_path}
    refused(
        run_here("train.py", **given, NAME="timm/test_resnot"), "expected one of timm/test_resnet, ", "nearest names"
    )
    monkeypatch.setitem(sys.modules, "timm", None)
    done = run_here("train.py", **given, NAME=RESNET)
    refused(done, f"NAME={RESNET}: expected the package timm, which is not installed; pip install -r requirements-ext")
    assert list(tmp_path.iterdir()) == []


def test_trained_weights_come_from_the_cache_or_a_file(cache):
    file, state = fill(cache, "test_resnet")
    from_cache, start = model.build(RESNET, (32, 32), "imagenet")
    assert start.pretrained == "timm/test_resnet.r160_in1k" and start.sha256 == files.sha256(file)
    from_file, of_file = model.build(RESNET, (32, 32), str(file))
    assert of_file.taken == start.taken and start.mean == of_file.mean == (0.5, 0.5, 0.5)
    for net in (from_cache, from_file):
        found = net.state_dict()
        assert all(torch.equal(found[key], state[key]) for key in state.keys() - {"fc.weight", "fc.bias"})
        assert found["fc.weight"].shape[0] == 18 and len(model.head_names(net)) == 2
    file.write_bytes(file.read_bytes()[:-99])
    with pytest.raises(InputError, match=f"NAME={RESNET} cannot be built for SIZE=32x32 from {file}: "):
        model.build(RESNET, (32, 32), "imagenet")


def test_a_net_of_one_size_is_made_for_this_one_and_timm_resizes_what_depends_on_it(cache):
    _, state = fill(cache, "test_vit")
    net, _ = model.build(VIT, (48, 32), "imagenet")
    assert net.state_dict()["pos_embed"].shape[1] == 1 + 3 * 2 != state["pos_embed"].shape[1]
    assert torch.equal(net.state_dict()["blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.weight"])
    with pytest.raises(InputError, match=f"NAME={VIT} does not take SIZE=50x32: .*; its own size is 160x160"):
        model.build(VIT, (50, 32))


def test_weights_that_cannot_be_had_are_asked_for_in_one_line(cache):
    expected = r"expected model.safetensors of timm/test_resnet.r160_in1k in the Hugging Face cache, .*HF_HOME"
    with pytest.raises(InputError, match=expected) as error:
        model.build(RESNET, (32, 32), "imagenet")
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(InputError, match="timm has no model.safetensors for timm/coatnet_0_224; set WEIGHTS=none"):
        model.build("timm/coatnet_0_224", (32, 32), "imagenet")


def test_training_inference_and_onnx_take_them(drawn, tmp_path):
    given = QUICK | {"SM_CHANNEL_TRAIN": drawn.train, "SM_MODEL_DIR": tmp_path / "runs", "NAME": RESNET}
    succeeded(run_here("train.py", **given, HEAD="factored", FOLDS="2", FOLD="1"))
    header = read_header(tmp_path / "runs" / "timm-test_resnet" / "model.safetensors")
    assert (header.backbone, header.mean, header.std) == (RESNET, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    succeeded(run_here("export.py", SM_CHANNEL_MODEL=tmp_path / "runs", NAME=RESNET))
    probabilities = []
    for runtime, precision in (("torch", "fp32"), ("onnx", "")):
        done = run_here(
            "inference.py", SM_CHANNEL_EVAL=drawn.eval, SM_CHANNEL_MODEL=tmp_path / "runs", NAME=RESNET,
            SM_OUTPUT_DATA_DIR=tmp_path / runtime, RUNTIME=runtime, DEVICE="cpu", PRECISION=precision,
        )  # fmt: skip
        succeeded(done)
        probabilities.append(pd.read_csv(tmp_path / runtime / "probabilities.csv").filter(regex=r"^p\d+$"))
    assert (probabilities[0] - probabilities[1]).abs().to_numpy().max() < 1e-5
