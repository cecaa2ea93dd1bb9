"""Batch norm fused into convolutions: the same logits, the net as it was, and nothing where it would be wrong."""

import pytest
import torch
from torch import nn

import model
from toolkit.config.settings import InferenceSettings
from toolkit.models import fuse_batch_norm
from toolkit.models.predict import Mirrored
from toolkit.serving.runtimes import TorchRuntime


def used(net: nn.Module) -> nn.Module:
    """The net in its evaluation mode, with statistics of batch norm as if it had been trained."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            for value, low, high in ((module.running_mean, -0.1, 0.1), (module.running_var, 0.5, 2.0)):
                value.uniform_(low, high, generator=generator)
            for value, low, high in ((module.weight.data, 0.5, 1.5), (module.bias.data, -0.1, 0.1)):
                value.uniform_(low, high, generator=generator)
    return net.eval()


def norms(net: nn.Module) -> int:
    called = [net.get_submodule(node.target) for node in net.graph.nodes if node.op == "call_module"]
    return sum(isinstance(module, nn.BatchNorm2d) for module in called)


@pytest.mark.parametrize(("name", "left"), [("resnet18", 0), ("vgg11_bn", 0), ("densenet121", 62), ("googlenet", 0)])
@torch.inference_mode()
def test_the_logits_stay_and_the_net_too(name, left):
    torch.manual_seed(0)
    net = used(model.build(name, (64, 64))[0])
    before = {key: value.clone() for key, value in net.state_dict().items()}
    photographs = torch.randn(3, 3, 64, 64)
    logits, fused = net(photographs), fuse_batch_norm.fuse(net, photographs)
    assert norms(fused) == left  # a norm that comes before its convolution cannot be fused
    torch.testing.assert_close(fused(photographs), logits, rtol=1e-3, atol=1e-4 * logits.abs().max().item())
    low = fuse_batch_norm.cast(fused, torch.bfloat16)
    assert {value.dtype for value in low.state_dict().values() if value.is_floating_point()} == {torch.bfloat16}
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])


class Small(nn.Module):
    """A convolution and a norm."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)


class Shared(Small):
    """One convolution in two places, with a norm behind the first only: fused, the second would be wrong."""

    def forward(self, photographs):
        return self.convolution(self.norm(self.convolution(photographs)))


class Branching(Small):
    """A path that depends on the pixels cannot be traced."""

    def forward(self, photographs):
        maps = self.norm(self.convolution(photographs))
        return maps if maps.mean() > 0 else -maps


class Looking(Small):
    """A symbol is no tensor: traced, it takes the other path, without an error."""

    def forward(self, photographs):
        maps = self.norm(self.convolution(photographs))
        return maps * 2 if isinstance(maps, torch.Tensor) else maps


class Untracked(nn.Module):
    """A norm that keeps no statistics."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False))

    def forward(self, photographs):
        return self.layers(photographs)


@pytest.mark.parametrize("kind", [Shared, Branching, Looking, Untracked])
@torch.inference_mode()
def test_what_cannot_be_fused_rightly_is_not(kind):
    torch.manual_seed(0)
    net, photographs = used(kind()), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(fuse_batch_norm.fuse(net, photographs)(photographs), net(photographs))


@pytest.mark.parametrize("name", ["densenet121", "branching"])
@torch.inference_mode()
def test_a_net_that_is_ready_for_requests_is_not_traced_again(name, monkeypatch):
    """Tracing changes nn.Module for all threads: requests at the same time failed, and all later ones."""
    runtime, photographs = TorchRuntime(InferenceSettings(device="cpu"), None), torch.rand(2, 3, 32, 32)
    net = used(Branching() if name == "branching" else model.build(name, (32, 32))[0])
    ready = runtime.prepare_for_requests(net, (32, 32))
    assert any(isinstance(module, nn.BatchNorm2d) for module in ready.modules())
    monkeypatch.setattr(fuse_batch_norm, "_fused", lambda _: pytest.fail("it was traced"))
    for view in (ready, Mirrored(ready)):
        assert fuse_batch_norm.fuse(view, photographs) is view
