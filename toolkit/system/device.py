"""Where models run: device and precision, and what to advise when memory runs out."""

import contextlib
import math
from dataclasses import dataclass

import torch

from toolkit.system import world
from toolkit.system.console import InputError, first_line

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
# The last two are from cuBLAS and cuDNN, and from Apple's GPU for a tensor above its largest size.
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED", "Invalid buffer size")


@dataclass(frozen=True)
class Machine:
    """A device, and the precision that models compute in. Weights in training are always float32."""

    device: torch.device
    precision: torch.dtype

    def autocast(self) -> torch.autocast:
        """The context for a forward pass in this precision."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    @property
    def is_async(self) -> bool:
        """Whether Python runs ahead of the device, and would wait for it to read a number."""
        return self.device.type == "cuda"

    def seed(self, number: int) -> None:
        """Seed torch's generators, of the CPU and of this device.

        Not torch.manual_seed: it also records the call stack for each kind of device that is missing, which takes 0.1
        ms.
        """
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index].manual_seed(number)
        elif self.device.type == "mps":
            torch.mps.manual_seed(number)

    def prediction_batch_size(self, size: tuple[int, int]) -> int:
        """How many photographs of (height, width) to predict at once: keeps a GPU busy, and a CPU within its caches."""
        pixels = 2**20 if self.device.type == "cpu" else 2**22
        return max(pixels // math.prod(size), 1)

    def __str__(self) -> str:
        cuda = self.device.type == "cuda"
        detail = torch.cuda.get_device_name(self.device) if cuda else f"{torch.get_num_threads()} threads"
        return f"{self.device.type} ({detail}), {str(self.precision).removeprefix('torch.')}, torch {torch.__version__}"


def choose(device: str, precision: str) -> Machine:
    """The machine that DEVICE and PRECISION name. Raises InputError if torch finds no such device.

    Device "auto" is CUDA, else MPS, else the CPU; precision "auto" is bf16 if the hardware computes in it, else fp32.
    """
    # Apple's GPU has no backend of torch.distributed.
    mps = torch.backends.mps.is_available() and world.size() == 1
    available = {"cuda": torch.cuda.is_available(), "mps": mps, "cpu": True}
    if device == "auto":
        device = next(kind for kind, found in available.items() if found)
    if not available[device]:
        found = ", ".join(kind for kind, there in available.items() if there)
        raise InputError(f"DEVICE={device}: expected a device that torch {torch.__version__} finds here, found {found}")
    if precision == "auto":
        precision = "bf16" if _computes_in_bf16(device) else "fp32"
    where = torch.device(device, world.local_rank()) if device == "cuda" else torch.device(device)
    return Machine(where, PRECISIONS[precision])


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch ran out of memory: on a CPU that is a plain RuntimeError, told by its text."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(sign in text for sign in OUT_OF_MEMORY)


@contextlib.contextmanager
def exact_float32():
    """Within the block, float32 convolutions are exact on a GPU too: by default cuDNN rounds their inputs to TF32."""
    cudnn = torch.backends.cudnn
    before, cudnn.allow_tf32 = cudnn.allow_tf32, False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


@contextlib.contextmanager
def out_of_memory_advice(settings: str):
    """Turns an out-of-memory error of the block into an InputError that names these settings."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(error)
        raise InputError(f"out of memory: lower {settings}; nothing that was saved is lost ({reason})") from None


def _computes_in_bf16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu":
        # avx512_bf16 is not enough: without AMX, bf16 took 1.2 to 1.6 times as long as fp32, in training and
        # prediction. Only oneDNN uses bf16, and torch for macOS lacks it, so an M2 gains nothing although its core has
        # bf16.
        has = torch.cpu.get_capabilities()
        return torch.backends.mkldnn.is_available() and bool(has.get("amx_bf16") or has.get("bf16"))
    return False
