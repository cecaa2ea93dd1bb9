"""Training steps of nets with depthwise convolutions on a CPU: float32, torch's bf16, and ours (toolkit/models).

python benchmarks/depthwise.py [--names efficientnet_lite0,mobilenet_v3_large] [--turns 7]

Only where the CPU computes in bf16 does it matter (DEVICE=cpu PRECISION=auto). A step is forward and backward of 32
photographs at 128x96. All are measured in turns; printed are median, lowest and highest seconds.
"""

from functools import partial

import common
import torch

import model
from toolkit.models import cpu_convolution, placement
from toolkit.system import device

NAMES = "efficientnet_lite0,mobilenet_v3_large,efficientnet_b0,convnext_tiny"
BATCH, SIZE = 32, (128, 96)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--names", default=NAMES, type=common.words)
    parser.add_argument("--turns", default=7, type=int)
    options = parser.parse_args()
    print(f"{device.choose('cpu', 'auto')}; seconds for a step of {BATCH} photographs")
    for name in options.names:
        steps = {"float32": step(name, "fp32"), "torch's bf16": step(name, "bf16", False), "bf16": step(name, "bf16")}
        timed = {kind: partial(common.seconds, one) for kind, one in steps.items()}
        seconds = common.in_turns(timed, options.turns, warm_up=1)  # the first turn finds kernels
        cells = (f"{kind} {common.as_text(values)}" for kind, values in seconds.items())
        print(f"{name:20} {'  '.join(cells)}", flush=True)


def step(name: str, precision: str, float32_gradients: bool = True):
    """A function that does one training step, without the optimizer."""
    machine = device.choose("cpu", precision)
    net, _ = model.build(name, SIZE)
    if float32_gradients:
        placement.to_device(net, machine)
    else:
        is_depthwise, cpu_convolution._is_depthwise = cpu_convolution._is_depthwise, lambda layer: False
        placement.to_device(net, machine)
        cpu_convolution._is_depthwise = is_depthwise
    photographs = torch.randn(BATCH, 3, *SIZE).to(memory_format=torch.channels_last)

    def once() -> None:
        with machine.autocast():
            logits = net(photographs).float()
        logits.logsumexp(1).sum().backward()
        net.zero_grad()

    return once


if __name__ == "__main__":
    main()
