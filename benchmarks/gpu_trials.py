"""What might make it faster on a GPU, tried: parts of gpu.py, whose numbers decide about defaults.

Rates are as in gpu_throughput.py. The limit in other forms, CUDA graphs, cudnn.benchmark, torch.compile, larger batches
with the learning rates that go with them, and the first epoch while photographs are still decoded.
"""

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from gpu_correctness import prepared
from gpu_throughput import FIRST_STEPS, backends, choose_steps, in_turns, make_bench, no_tf32, seconds_to
from throughput import LR, Bench
from torch import nn

import model
from toolkit.data.framing import Framing
from toolkit.data.loader import Loader
from toolkit.data.store import Store
from toolkit.models import placement
from toolkit.training import loop
from toolkit.training.optimizer import make_optimizer
from toolkit.training.step import train_one_epoch

LEARNING = (  # precision, batch size, how many times the learning rate of a batch of 32
    ("fp32", 32, 1.0), ("bf16", 32, 1.0), ("bf16", 128, 1.0), ("bf16", 128, 2.0), ("bf16", 256, 1.0),
    ("bf16", 256, 2.8), ("bf16", 512, 4.0),
)  # fmt: skip
SEEDS = (42, 1)


def forms(net: str) -> Callable:
    """The limit in other forms of net, optimizer and precision, in turns; the whole step as one CUDA graph."""

    def part(setup) -> None:
        bench = make_bench(setup, net)

        def of(batch: int) -> dict:
            one = bench()
            one.batch, one.steps = batch, FIRST_STEPS
            ways = {"as it is": limit(one)}
            choose_steps(setup, one, ways["as it is"])
            ways |= {
                "contiguous": limit(one, layout=torch.contiguous_format),
                "optimizer in foreach": limit(one, optimizer=functools.partial(torch.optim.AdamW, foreach=True)),
                "no clipping": limit(one, clip=False),
                "deterministic": limit(one, under=deterministic),
                "float32, TF32 in convolutions": limit(one, precision=torch.float32),
                "float32, TF32 everywhere": limit(one, precision=torch.float32, under=tf32),
                "float32": limit(one, precision=torch.float32, under=no_tf32),
            }
            return in_turns(ways, max(setup.scale.turns // 2, 1))

        def graph(batch: int) -> dict:
            one = bench()
            one.batch, one.steps = batch, FIRST_STEPS
            ways = {"as it is": limit(one), "graph": whole_step_graph(one)}
            choose_steps(setup, one, ways["as it is"])
            return in_turns(ways, setup.scale.turns)

        if setup.device == "cuda":
            for batch in setup.scale.batches:
                setup.measure(f"graph, batch {batch}", graph, batch)
        for batch in setup.scale.batches[1:]:
            setup.measure(f"batch {batch}", of, batch)

    return part


deterministic = functools.partial(backends, cudnn__deterministic=True)
tf32 = functools.partial(backends, cuda__matmul__allow_tf32=True, cudnn__allow_tf32=True)


def limit(
    bench: Bench,
    layout=torch.channels_last,
    optimizer: Callable | None = None,
    clip: bool = True,
    precision: torch.dtype | None = None,
    under: Callable = contextlib.nullcontext,
) -> Callable[[], float]:
    """`Bench.train_limit` with another memory layout, optimizer, precision, or settings of torch."""
    net = copy.deepcopy(bench.untrained).to(bench.machine.device, memory_format=layout).train()
    made = optimizer(net.parameters(), LR) if optimizer else make_optimizer("adamw", net, LR, 0.05)
    machine = dataclasses.replace(bench.machine, precision=precision or bench.machine.precision)
    inputs, labels = next(bench.loader.load([bench.everything[: bench.batch]])), bench.task.labels[: bench.batch]
    inputs = inputs.contiguous(memory_format=layout)

    def measure() -> float:
        with under():
            began = bench.now()
            for _ in range(bench.steps):
                step(net, made, machine.autocast(), inputs, labels, clip)
            return bench.steps * bench.batch / (bench.now() - began)

    return measure


def step(net, optimizer, autocast, inputs, labels, clip: bool = True) -> None:
    optimizer.zero_grad(set_to_none=True)
    with autocast:
        logits = net(inputs)
    F.cross_entropy(logits.float(), labels).backward()
    if clip:
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()


def whole_step_graph(bench: Bench) -> Callable[[], float]:
    """The limit with forward, backward and optimizer captured once and replayed: Python launches one thing a step."""
    net = placement.to_device(copy.deepcopy(bench.untrained), bench.machine).train()
    rate = torch.tensor(LR, device=bench.machine.device)  # a number would be captured as it is
    optimizer = torch.optim.AdamW(net.parameters(), rate, fused=True, capturable=True)
    inputs, labels = next(bench.loader.load([bench.everything[: bench.batch]])), bench.task.labels[: bench.batch]
    static = inputs.clone()

    def autocast():
        # Without its cache of cast weights, which would outlive the capture.
        return torch.autocast("cuda", bench.machine.precision, cache_enabled=False)

    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):  # what is made at the first step must not be captured
        for _ in range(3):
            step(net, optimizer, autocast(), static, labels)
    torch.cuda.current_stream().wait_stream(beside)
    optimizer.zero_grad(set_to_none=True)  # gradients must be made in the graph's own memory
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(net, optimizer, autocast(), static, labels)

    def measure() -> float:
        began = bench.now()
        for _ in range(bench.steps):
            static.copy_(inputs)
            graph.replay()
        return bench.steps * bench.batch / (bench.now() - began)

    return measure


def with_cudnn_benchmark(net: str) -> Callable:
    """Rates with cudnn.benchmark, and how long its first epoch is: in a process of its own, as cuDNN's choices stay."""

    def part(setup) -> None:
        torch.backends.cudnn.benchmark = True
        bench = make_bench(setup, net)

        def of(batch: int) -> dict:
            one = bench()
            one.batch, one.steps = batch, FIRST_STEPS
            ways = {"ours, augmented": one.train_ours("light"), "limit": one.train_limit()}
            first = seconds_to(setup, ways["ours, augmented"])
            choose_steps(setup, one, ways["limit"])
            return {**in_turns(ways, setup.scale.turns), "seconds_of_first_steps": first}

        for batch in setup.scale.batches:
            setup.measure(f"batch {batch}", of, batch)

    return part


def compiled(net: str) -> Callable:
    """torch.compile, plainly and with CUDA graphs: its seconds, and the steps that win them back (COMPILE=auto)."""

    def part(setup) -> None:
        bench = make_bench(setup, net)

        def of(batch: int, mode: str | None) -> dict:
            torch._dynamo.reset()  # else what was compiled before counts towards its limit, and it gives up in silence
            one = bench()
            one.batch, one.steps = batch, FIRST_STEPS
            eager = one.train_ours("light")
            choose_steps(setup, one, eager)
            steps, one.steps = one.steps, FIRST_STEPS
            quick = one.train_ours("light", lambda net: torch.compile(net, dynamic=False, mode=mode))
            # Batches have two sizes: an epoch of a photograph less has both. With graphs each is run, then captured.
            first = seconds_to(setup, quick)
            everything, one.everything = one.everything, one.everything[: FIRST_STEPS * batch - 1]
            other = seconds_to(setup, quick)
            one.everything, one.steps = everything, steps
            found = in_turns({"eager": eager, "compiled": quick}, setup.scale.turns)
            saved = batch / found["eager"][0] - batch / found["compiled"][0]  # seconds a step
            seconds = first + other
            return {**found, "seconds_to_compile": seconds, "steps_to_win_back": seconds / saved if saved > 0 else None}

        batch = setup.scale.batches[0]
        setup.measure(f"plain, batch {batch}", of, batch, None)
        setup.measure(f"graphs, batch {batch}", of, batch, "reduce-overhead")

    return part


def start(setup) -> None:
    """From files to the end of the first epoch: decode, copy to the GPU, train; or train while decoding goes on."""
    net, size = setup.scale.nets[0], setup.scale.size

    @functools.cache
    def warm_bench() -> Bench:
        bench = make_bench(setup, net)()
        bench.batch = setup.scale.batches[0]
        bench.train_ours("light")()  # cuDNN chooses its algorithms
        return bench

    def epoch(loader: Loader) -> float:
        one = warm_bench()
        one.steps, task = 10**6, one.task
        one.task = dataclasses.replace(task, loader=loader)
        taken = seconds_to(setup, one.train_ours("light"))
        one.task = task
        return taken

    def loader_of(store: Store) -> Loader:
        return Loader(store, warm_bench().machine, model.MEAN, model.STD)

    def one_after_another() -> dict:
        store = Store(warm_bench().paths, Framing(size))
        decoding = seconds_to(setup, store.fill)
        loader = loader_of(store)
        copying = seconds_to(setup, loader.move_to_gpu)
        training = epoch(loader)
        per_second = len(store) / decoding
        times = {"decode": decoding, "to_gpu": copying, "epoch": training, "all": decoding + copying + training}
        return {**times, "decoded_per_s": per_second}

    def at_once() -> dict:
        with Store(warm_bench().paths, Framing(size)) as store:
            taken = epoch(loader_of(store))
            store.wait()
        return {"all": taken}

    def from_host() -> dict:
        """An epoch from memory of the host, as of a store that is too large for the GPU, beside one on the GPU."""
        loader = loader_of(warm_bench().loader.store)
        return {"from_host": epoch(loader), "on_gpu": epoch(warm_bench().loader)}

    setup.measure("while decoding", at_once)
    setup.measure("after decoding", one_after_another)
    setup.measure("an epoch's pixels", from_host)


def learning(setup) -> None:
    """Loss and score by precision, batch size and learning rate: what a larger default batch would cost or gain."""
    quick = setup.scale.people < 100
    epochs = 1 if quick else 3

    def trained(precision: str, batch: int, factor: float, seed: int) -> dict:
        state, task, recipe = prepared(
            sm_channel_train=setup.scratch / "images", cache_dir=setup.scratch / "cache", name=setup.scale.nets[0],
            size="x".join(map(str, setup.scale.small)), weights="none", epochs=epochs, device=setup.device,
            precision=precision, batch_size=batch, lr=1e-3 * factor, seed=seed,
        )  # fmt: skip
        losses = {}

        def train_all() -> None:
            for epoch in range(epochs):
                losses[epoch + 1] = train_one_epoch(state.model, state.optimizer, task, recipe, epoch)

        seconds = seconds_to(setup, train_all)
        scores = loop.evaluate(state.eval_model, task, recipe, epochs - 1, 0.5).scores
        return {"macro_f1": scores["macro_f1"], "val_loss": scores["val_loss"], "losses": losses, "seconds": seconds}

    for seed in SEEDS:
        for precision, batch, factor in LEARNING[: 2 if quick else None]:
            name = f"{precision}, {batch}, LR x {factor:g}, seed {seed}"
            setup.measure(name, trained, precision, batch, factor, seed)
