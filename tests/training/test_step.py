"""Training and prediction, on a net small enough to be quick and on real decoded photographs."""

import copy
import dataclasses
import math
import re
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from conftest import Async, task_of
from torch import nn

import dataset
import loss
import model
from toolkit.data.augment import POLICIES
from toolkit.data.loader import Loader, split_into_batches
from toolkit.models import placement
from toolkit.models.batch_norm import recompute_batch_norm_statistics
from toolkit.models.predict import predict
from toolkit.system import device
from toolkit.system.console import InputError
from toolkit.training.optimizer import load_state_tensors, make_optimizer, state_tensors
from toolkit.training.sampler import epoch_order
from toolkit.training.step import Recipe, train_one_epoch
from toolkit.training.task import Task

SIZE = (48, 36)
CPU = device.Machine(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def faces(drawn) -> Task:
    """70 photographs to learn from."""
    table, _ = dataset.read_faces(drawn.train)
    return task_of(table.iloc[:70], drawn.train, SIZE, np.arange(70))


def learning(faces: Task, photographs: np.ndarray, **given) -> Task:
    """The task to learn from these photographs."""
    return dataclasses.replace(faces, train=photographs, **given)


def on(faces: Task, machine: device.Machine) -> Task:
    """The same task on another machine."""
    return dataclasses.replace(faces, loader=Loader(faces.loader.store, machine, (0.5,) * 3, (0.25,) * 3))


def recipe(policy="none", batch_size=16, lr=3e-3, seed=0, clip_grad=1.0) -> Recipe:
    return Recipe(lambda step: lr, batch_size, clip_grad, seed, POLICIES[policy])


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.1),
        nn.Linear(256, 18),
    )  # fmt: skip


def test_every_seed_that_the_settings_take_works(faces):
    net = small_net()
    optimizer = make_optimizer("sgd", net, lr=0.01, weight_decay=0.0)
    task = learning(faces, np.arange(16))
    assert math.isfinite(train_one_epoch(net, optimizer, task, recipe(seed=2**32 - 1), 10**6))


def test_a_batch_can_be_overfitted(faces):
    torch.manual_seed(0)
    net, _ = model.build("resnet18", SIZE)
    optimizer = make_optimizer("adamw", net, lr=1e-3, weight_decay=0.05)
    batch = np.arange(8)
    for epoch in range(14):
        last = train_one_epoch(net, optimizer, learning(faces, batch), recipe(lr=1e-3), epoch)
    assert last < 0.05
    recompute_batch_norm_statistics(net, faces.loader, [batch])  # the moving averages are of a net that was worse
    assert (predict(net, faces.loader, batch).argmax(1) == faces.labels[:8]).all()


def trained(faces, epochs, net=None, optimizer=None):
    net = net or small_net()
    optimizer = optimizer or make_optimizer("adamw", net, lr=1e-3, weight_decay=0.05)
    for epoch in epochs:
        train_one_epoch(net, optimizer, learning(faces, np.arange(50)), recipe("strong"), epoch)
    return net, optimizer


def test_a_run_is_a_function_of_its_seed_and_goes_on_from_any_epoch_bit_for_bit(faces):
    whole, _ = trained(faces, range(4))
    torch.manual_seed(999)
    net, optimizer = trained(faces, range(2))
    np.random.seed(1)
    torch.rand(10)
    resumed, _ = trained(faces, range(2, 4), net, optimizer)
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("count", "batch_size"), [(50, 16), (17, 16), (16, 16), (3, 16), (1, 16), (65, 64), (5, 4)])
def test_batches_hold_everything_once_and_none_is_nearly_empty(count, batch_size):
    parts = split_into_batches(np.arange(count), batch_size)
    assert np.concatenate(parts).tolist() == list(range(count))
    sizes = {len(part) for part in parts}
    assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1


def test_no_batch_of_training_holds_a_single_photograph():
    assert [len(part) for part in split_into_batches(np.arange(5), 2)] == [3, 2]
    for count in range(2, 40):
        for batch_size in range(2, 9):
            assert min(len(part) for part in split_into_batches(np.arange(count), batch_size)) >= 2


def test_the_order_changes_by_epoch_and_holds_everything():
    photographs = np.arange(100, 150)
    first, second = epoch_order(photographs, 0, 0), epoch_order(photographs, 0, 1)
    assert sorted(first) == sorted(second) == photographs.tolist() and (first != second).any()


def test_the_loss_of_an_epoch_is_the_mean_over_its_photographs(faces):
    seen = []

    def criterion(logits, labels):
        seen.extend([labels.float().mean().item()] * len(labels))
        return logits.sum() * 0 + labels.float().mean()

    net = small_net()
    optimizer = make_optimizer("sgd", net, lr=0.1, weight_decay=0.0)
    by_labels = learning(faces, np.arange(50), criterion=criterion)
    mean = train_one_epoch(net, optimizer, by_labels, recipe(lr=0.1, clip_grad=0.0), 0)
    assert mean == pytest.approx(np.mean(seen), rel=1e-5) == pytest.approx(faces.labels[:50].float().mean().item())


def test_validation_sees_the_stored_preprocessing_and_nothing_else_whatever_the_batch(faces):
    net, photographs = small_net(), np.array([5, 3, 60, 12, 7])
    logits = predict(net, faces.loader, photographs, 2)
    plain = (faces.loader.store.gather(torch.from_numpy(photographs)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.inference_mode():
        torch.testing.assert_close(logits, net.eval()(plain), rtol=1e-4, atol=1e-5)
    assert logits.shape == (5, 18) and logits.dtype == torch.float32


def test_batch_norm_gets_the_statistics_of_the_net_as_it_is_now(faces):
    net, _ = trained(faces, range(1))
    convolution, norm = net[0], net[1]
    weights = nn.utils.parameters_to_vector(net.parameters()).clone()
    recompute_batch_norm_statistics(net, faces.loader, split_into_batches(np.arange(48), 16))
    with torch.inference_mode():
        maps = convolution(next(faces.loader.load([np.arange(48)])))
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norm.running_var, maps.var((0, 2, 3)), rtol=0.05, atol=1e-3)
    assert norm.momentum == 0.1 and torch.equal(weights, nn.utils.parameters_to_vector(net.parameters()))


def test_statistics_of_a_norm_in_two_places_are_the_mean_over_both(faces):
    norm = nn.BatchNorm2d(3)
    net, batches = nn.Sequential(norm, nn.Conv2d(3, 3, 1), norm), split_into_batches(np.arange(48), 16)
    recompute_batch_norm_statistics(net, faces.loader, batches)
    found, norm.momentum = norm.running_mean.clone(), None  # torch's own plain mean
    norm.reset_running_stats()
    with torch.inference_mode():
        for inputs in faces.loader.load(batches):
            net.eval()
            norm.train()
            net(inputs)
    torch.testing.assert_close(found, norm.running_mean)


@pytest.fixture(scope="module")
def resnet(faces) -> nn.Module:
    """A resnet18 after three epochs on the first 64 photographs; its running statistics lag behind its weights."""
    torch.manual_seed(0)
    net, _ = model.build("resnet18", SIZE)
    optimizer = make_optimizer("adamw", net, lr=1e-3, weight_decay=0.05)
    for epoch in range(3):
        train_one_epoch(net, optimizer, learning(faces, np.arange(64)), recipe(lr=1e-3), epoch)
    return net


def test_after_a_few_steps_validation_sees_what_training_has_learned(faces, resnet):
    photographs, net = np.arange(64), copy.deepcopy(resnet)
    lagging = loss.cross_entropy(predict(net, faces.loader, photographs, 64), faces.labels[:64])
    recompute_batch_norm_statistics(net, faces.loader, split_into_batches(photographs, 16))
    recomputed = loss.cross_entropy(predict(net, faces.loader, photographs, 64), faces.labels[:64])
    assert recomputed < 0.8 * lagging


def test_a_step_in_bf16_is_nearly_the_same_step(faces):
    losses, weights = {}, {}
    for precision in (torch.float32, torch.bfloat16):
        net = small_net()
        mixed = on(learning(faces, np.arange(16)), device.Machine(CPU.device, precision))
        optimizer = make_optimizer("sgd", net, lr=0.01, weight_decay=0.0)
        losses[precision] = train_one_epoch(net, optimizer, mixed, recipe(lr=0.01), 0)
        weights[precision] = nn.utils.parameters_to_vector(net.parameters())
        assert all(parameter.dtype == torch.float32 for parameter in net.parameters())
    assert losses[torch.bfloat16] == pytest.approx(losses[torch.float32], rel=0.02)
    before = nn.utils.parameters_to_vector(small_net().parameters())
    steps = [weights[precision] - before for precision in (torch.float32, torch.bfloat16)]
    assert torch.cosine_similarity(*steps, dim=0) > 0.98


def test_prediction_in_bf16_says_what_float32_says(faces, resnet):
    """With batch norm fused and weights in bf16: nearly the logits of the plain net, and its classes."""
    everything, net = np.arange(40), copy.deepcopy(resnet)
    with torch.inference_mode():
        plain = torch.cat([net.eval()(inputs) for inputs in faces.loader.load([everything])])
    fast = on(faces, device.Machine(CPU.device, torch.bfloat16))
    exact, quick = (predict(net, some.loader, everything) for some in (faces, fast))
    torch.testing.assert_close(exact, plain, rtol=1e-3, atol=1e-4)
    assert not torch.equal(quick, plain) and (quick - plain).abs().max() < 0.05 * plain.std()
    assert torch.equal(quick.argmax(1), plain.argmax(1))


def test_close_calls_of_bf16_are_decided_in_float32(faces):
    """A net whose logits differ less than bf16 can tell: every photograph is predicted again."""
    close = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(72, 18))
    with torch.no_grad():
        close[2].weight.mul_(1e-4)
        close[2].bias.fill_(1.0)
    fast = on(faces, device.Machine(CPU.device, torch.bfloat16))
    everything = np.arange(70)
    torch.testing.assert_close(predict(close, fast.loader, everything), predict(close, faces.loader, everything))


def test_what_decides_close_calls_is_exact_on_a_gpu_too(faces, resnet):
    """By default cuDNN rounds the inputs of convolutions to TF32."""
    fast, seen = on(faces, device.Machine(CPU.device, torch.bfloat16)), []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = resnet

        def forward(self, photographs):
            if photographs.isfinite().all():  # so it cannot be traced, and all is seen
                seen.append((photographs.dtype, torch.backends.cudnn.allow_tf32))
            return self.net(photographs)

    predict(Watched().eval(), fast.loader, np.arange(40))
    assert {is_rounded for dtype, is_rounded in seen if dtype == torch.float32} == {False}
    assert torch.backends.cudnn.allow_tf32


def test_a_machine_is_seeded_as_torch_seeds():
    CPU.seed(2**62 + 5)
    found = torch.rand(4)
    torch.manual_seed(2**62 + 5)
    assert torch.equal(found, torch.rand(4))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory", True),
        ("Invalid buffer size: 19.38 GiB", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_a_lack_of_memory_is_told_by_what_libraries_say(text, expected):
    assert device.is_out_of_memory(RuntimeError(text)) == expected


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
def test_a_compiled_net_trains_the_weights_of_the_net_that_it_was_made_from(faces):
    plain, compiled = small_net(), small_net()
    train_model = placement.compiled(compiled, CPU, "true", steps=1)
    for never in ("auto", "false"):
        assert placement.compiled(plain, CPU, never, steps=10**9) is plain
    for net, trained_one in ((plain, plain), (train_model, compiled)):
        optimizer = make_optimizer("sgd", trained_one, lr=0.01, weight_decay=0.0)
        train_one_epoch(net, optimizer, learning(faces, np.arange(48)), recipe(lr=0.01), 0)
    before, *after = (nn.utils.parameters_to_vector(net.parameters()) for net in (small_net(), plain, compiled))
    assert torch.cosine_similarity(*(weights - before for weights in after), dim=0) > 0.9  # dropout draws otherwise


@pytest.mark.parametrize("machine", [CPU, Async(CPU.device, CPU.precision)])
@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_step_that_is_not_finite_is_not_taken_and_said(faces, machine, what, name):
    net = small_net()
    optimizer = make_optimizer(name, net, lr=0.01, weight_decay=0.1)
    weights, steps = [], iter(range(3))

    def criterion(logits, labels):
        weights.append(nn.utils.parameters_to_vector(net.parameters()).clone())
        value = loss.cross_entropy(logits, labels)
        if next(steps) == 1:
            return value * math.inf if what == "loss" else value + (logits.sum() * 0).sqrt()  # 0, and 1 / 0 its slope
        return value

    exploding = Recipe(lambda step: 0.1 if step < 1 else 0.5, 16, 0.0, 0)
    task = on(learning(faces, np.arange(48), criterion=criterion), machine)
    first = re.escape(faces.loader.store.paths[epoch_order(np.arange(48), 0, 0)[16]].decode())
    found = {"loss": "a loss of inf", "gradient": "a loss of [0-9.]+ and a gradient of length (nan|inf)"}[what]
    with pytest.raises(InputError, match=rf"epoch 1, step 2 of 3, learning rate 0.5: .* {found}.*{first}"):
        train_one_epoch(net, optimizer, task, exploding, 0)
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(nn.utils.parameters_to_vector(net.parameters()), weights[1])


@pytest.mark.parametrize("criterion", loss.LOSSES.values(), ids=loss.LOSSES)
def test_a_batch_in_pieces_has_the_loss_and_the_gradients_of_the_batch(faces, criterion):
    """For every loss, and with a shorter last piece: there the mean of the pieces' means would be wrong."""
    weight = torch.linspace(0.1, 2, 18)
    adjusted = {"priors": torch.linspace(0.01, 0.1, 18), "tau": 1.0}
    own = {loss.label_smoothing: {"smoothing": 0.1}, loss.focal: {"gamma": 2.0}, loss.logit_adjusted: adjusted}
    options = own.get(criterion, {}) | ({} if criterion is loss.focal else {"weight": weight})
    nets, losses = [], []
    for micro_batch_size in (None, 7):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 18))
        optimizer = make_optimizer("sgd", net, lr=0.5, weight_decay=0.0)
        task = learning(faces, np.arange(66), criterion=partial(criterion, **options))
        steps = Recipe(lambda step: 0.5, 33, 0.0, 0, POLICIES["light"], micro_batch_size=micro_batch_size)
        losses.append(train_one_epoch(net, optimizer, task, steps, 0))
        nets.append(nn.utils.parameters_to_vector(net.parameters()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    torch.testing.assert_close(*nets, rtol=1e-5, atol=1e-6)


def test_an_epoch_that_goes_on_within_ends_as_one_that_was_not_interrupted(faces):
    task, ends = learning(faces, np.arange(66)), []
    for stop in (None, 2):
        net = small_net()
        optimizer = make_optimizer("adamw", net, lr=0.01, weight_decay=0.1)
        done = []

        def after_step(losses, done=done, stop=stop):
            done[:] = losses.tolist()
            if len(done) == stop:
                raise KeyboardInterrupt

        if stop:
            with pytest.raises(KeyboardInterrupt):
                train_one_epoch(net, optimizer, task, recipe("light"), 0, (), after_step)
            state = {name: value.clone().contiguous() for name, value in state_tensors(optimizer).items()}
            optimizer = make_optimizer("adamw", net, lr=0.01, weight_decay=0.1)
            load_state_tensors(optimizer, state)
        value = train_one_epoch(net, optimizer, task, recipe("light"), 0, done[:stop] if stop else ())
        ends.append((value, nn.utils.parameters_to_vector(net.parameters())))
    assert ends[0][0] == ends[1][0] and torch.equal(ends[0][1], ends[1][1])


def test_steps_are_counted_over_the_whole_run(faces):
    asked = []

    def rate(step):
        asked.append(step)
        return 1e-3

    net = small_net()
    optimizer = make_optimizer("sgd", net, lr=0.01, weight_decay=0.0)
    counting = Recipe(rate, 16, 1.0, 0)
    for epoch in range(2):
        train_one_epoch(net, optimizer, learning(faces, np.arange(48)), counting, epoch)
    assert asked == list(range(6))


@pytest.mark.parametrize("clip_grad", [0.5, 0.0])
def test_gradients_are_clipped_to_their_norm(faces, clip_grad):
    net = small_net()
    before = nn.utils.parameters_to_vector(net.parameters()).clone()

    def steep(logits, labels):
        return 1000 * loss.cross_entropy(logits, labels)

    task = learning(faces, np.arange(16), criterion=steep)
    train_one_epoch(net, torch.optim.SGD(net.parameters()), task, recipe(lr=1.0, clip_grad=clip_grad), 0)
    moved = (nn.utils.parameters_to_vector(net.parameters()) - before).norm().item()
    assert moved == pytest.approx(0.5, rel=1e-3) if clip_grad else moved > 100


def test_devices_and_precisions_by_name():
    assert device.choose("cpu", "fp32") == CPU
    assert device.choose("cpu", "bf16").precision == torch.bfloat16
    assert device.choose("cpu", "auto").precision in (torch.float32, torch.bfloat16)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="DEVICE=cuda: expected a device .*, found (mps, )?cpu"):
            device.choose("cuda", "auto")
        assert device.choose("auto", "fp32").device.type in ("mps", "cpu")


@pytest.mark.parametrize(("has_onednn", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_has_bf16_only_where_torch_has_onednn_which_it_lacks_on_macos(monkeypatch, has_onednn, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "arm64", "bf16": True})  # an M2
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: has_onednn)
    assert device.choose("cpu", "auto").precision == expected
