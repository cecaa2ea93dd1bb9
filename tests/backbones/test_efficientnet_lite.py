"""EfficientNet-Lite0: the logits of another implementation, and a run from its ImageNet weights."""

import pytest
import torch
from conftest import QUICK, refused, run_here, succeeded
from efficientnet_lite_pytorch import EfficientNet
from sklearn.datasets import load_sample_image
from torchvision.models import MobileNet_V2_Weights
from torchvision.transforms import v2

import model
from toolkit.backbones import efficientnet_lite
from toolkit.config import extras
from toolkit.runs.weights import read_header

CATEGORIES = MobileNet_V2_Weights.DEFAULT.meta["categories"]  # ImageNet's 1,000


@pytest.fixture(scope="module")
def state() -> dict:
    return efficientnet_lite.imagenet_weights().state


@pytest.mark.parametrize(("picture", "category"), [("china.jpg", "palace"), ("flower.jpg", "daisy")])
@torch.inference_mode()
def test_it_gives_the_logits_of_the_other_implementation_and_knows_what_is_in_a_photograph(picture, category, state):
    theirs = EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(state)
    ours = efficientnet_lite.EfficientNetLite0().eval()
    ours.load_state_dict({ours.rename(key): tensor for key, tensor in state.items()})
    photograph = torch.from_numpy(load_sample_image(picture).copy()).permute(2, 0, 1)[None] / 255
    photograph = v2.functional.resize(v2.functional.center_crop(photograph, 427), [224, 224], antialias=True)
    inputs = v2.functional.normalize(photograph, efficientnet_lite.MEAN, efficientnet_lite.STD)
    torch.testing.assert_close(inputs, (photograph * 255 - 127) / 128)
    torch.testing.assert_close(ours(inputs), theirs(inputs), rtol=0, atol=1e-4)
    assert CATEGORIES[ours(inputs).argmax()] == category


def test_sides_of_any_length_are_halved_and_rounded_up_as_tensorflow_does():
    net = efficientnet_lite.EfficientNetLite0(18).eval()
    for size in ((224, 224), (128, 96), (65, 47)):
        features = net.blocks(net.conv_stem(efficientnet_lite._padded(torch.zeros(1, 3, *size), 3)))
        assert features.shape[2:] == tuple(-(-side // 32) for side in size)


def test_while_it_learns_photographs_pass_over_blocks_the_more_often_the_deeper_they_lie():
    blocks = efficientnet_lite.EfficientNetLite0(18).blocks
    assert [round(blocks[number].drop_path, 4) for number in (0, 8, 15)] == [0.0, 0.1, 0.1875]
    features = torch.full((4000, 3, 2, 2), 0.5)
    dropped = efficientnet_lite._with_dropped(features, 0.1875)
    assert dropped.unique().tolist() == pytest.approx([0.0, 0.5 / 0.8125])
    assert torch.equal(dropped[:, :1, :1, :1].expand_as(dropped), dropped)  # whole photographs
    assert dropped.mean() == pytest.approx(0.5, rel=0.03)
    inputs, block = torch.randn(16, 192, 4, 3), blocks[14].train()
    passed = (block(inputs) == inputs).all((1, 2, 3))
    assert 0 < passed.sum() < 16
    assert not (block.eval()(inputs) == inputs).all((1, 2, 3)).any()


def test_a_run_starts_from_its_weights_and_keeps_its_mean_and_std(drawn, state, tmp_path):
    net, start = model.build("efficientnet_lite0", (32, 32), "imagenet")
    assert start.pretrained == "efficientnet-lite0-57934424" and start.taken["taken"] == 294
    assert net.fc.out_features == 18
    assert torch.equal(net.state_dict()["blocks.0.bn1.running_var"], state["_blocks.0._bn1.running_var"])
    file = extras.need_folder("", efficientnet_lite.PACKAGE) / efficientnet_lite.FILE
    assert model.build("efficientnet_lite0", (32, 32), str(file))[1].taken == start.taken  # the package's names too
    given = QUICK | {"NAME": "efficientnet_lite0", "PRETRAINED": "true", "SM_MODEL_DIR": tmp_path}
    done = run_here("train.py", SM_CHANNEL_TRAIN=drawn.train, **given)
    succeeded(done, "pretrained: efficientnet-lite0-57934424")
    header = read_header(tmp_path / "efficientnet_lite0" / "model.safetensors")
    assert (header.mean, header.std) == (efficientnet_lite.MEAN, efficientnet_lite.STD)
    done = run_here("inference.py", SM_CHANNEL_EVAL=drawn.eval, SM_CHANNEL_MODEL=tmp_path, SM_OUTPUT_DATA_DIR=tmp_path)
    succeeded(done)


def test_without_the_package_it_says_how_to_install_it(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "not_installed")
    given = QUICK | {"NAME": "efficientnet_lite0", "PRETRAINED": "true", "SM_MODEL_DIR": tmp_path}
    refused(run_here("train.py", SM_CHANNEL_TRAIN=drawn.train, **given), "which is not installed", extras.INSTALL)
    assert list(tmp_path.iterdir()) == []
