"""Where and how the net runs: device and precision."""

import contextlib
import math
from dataclasses import dataclass

import torch

from toolkit.models import cpu_convolution
from toolkit.system import world
from toolkit.system.console import InputError, say

COMPILE_FROM_STEPS = 10_000
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Machine:
    """A device and the number format that the net computes in; weights are fp32 in either."""

    device: torch.device
    precision: torch.dtype

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    @property
    def runs_ahead(self) -> bool:
        """Whether Python goes on while the device works, and would have to wait to read a number from it."""
        return self.device.type == "cuda"

    def place(self, net: torch.nn.Module) -> torch.nn.Module:
        """The net on the device, its weights in the layout that is fastest there: it is the same net, moved."""
        if self.device.type == "cpu":
            cpu_convolution.use_products(net)
        return net.to(self.device, memory_format=torch.channels_last)

    def compiled(self, net: torch.nn.Module, setting: str, steps: int) -> torch.nn.Module:
        """The net for training, compiled where COMPILE says so; weights are shared with `net`, which stays as it is.

        "auto" compiles where a run is long enough to win back the minute that it costs; on a processor it never is.
        """
        worth = self.device.type == "cuda" and steps >= COMPILE_FROM_STEPS
        if setting == "false" or (setting == "auto" and not worth):
            return net
        try:  # does it work here at all? It wants a C compiler, and Triton on a GPU
            torch.compile(lambda number: number + 1)(torch.zeros(1, device=self.device))
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            if setting == "true":
                raise InputError(
                    f"COMPILE=true: torch.compile does not work here ({reason}); set COMPILE=false"
                ) from None
            say(f"note: the net is not compiled, as torch.compile does not work here ({reason})")
            return net
        say("compiling the net: its first steps take a minute or more")
        return torch.compile(net, dynamic=False)  # batches are of two sizes at the most

    def batch_for_prediction(self, size: tuple[int, int]) -> int:
        """So many photographs of (height, width) at once: what keeps a GPU busy, and a processor within its caches."""
        pixels = 2**20 if self.device.type == "cpu" else 2**22
        return max(pixels // math.prod(size), 1)

    def __str__(self) -> str:
        cuda = self.device.type == "cuda"
        detail = torch.cuda.get_device_name(self.device) if cuda else f"{torch.get_num_threads()} threads"
        return f"{self.device.type} ({detail}), {str(self.precision).removeprefix('torch.')}, torch {torch.__version__}"


def choose(device: str, precision: str) -> Machine:
    """The machine of DEVICE and PRECISION. Raises InputError where the device is not there.

    "auto" takes CUDA, else MPS, else the CPU; and bf16 where the hardware computes in it, else fp32.
    """
    # Several processes of one job cannot meet on Apple's GPU.
    mps = torch.backends.mps.is_available() and world.size() == 1
    there = {"cuda": torch.cuda.is_available(), "mps": mps, "cpu": True}
    if device == "auto":
        device = next(kind for kind, available in there.items() if available)
    if not there[device]:
        found = ", ".join(kind for kind, available in there.items() if available)
        raise InputError(f"DEVICE={device}: torch {torch.__version__} finds none on this machine; it finds {found}")
    if precision == "auto":
        precision = "bf16" if _computes_in_bf16(device) else "fp32"
    place = torch.device(device, world.local_rank()) if device == "cuda" else torch.device(device)
    return Machine(place, PRECISIONS[precision])


def is_out_of_memory(error: Exception) -> bool:
    """Whether this is one of the errors by which torch says so: the processor's has no class of its own."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text or "out of memory" in text


@contextlib.contextmanager
def naming_what_saves_memory(settings: str):
    """Raises InputError that names these settings where the block runs out of memory."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"out of memory: lower {settings}; nothing that was saved is lost ({reason})") from None


def _computes_in_bf16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu":
        # Not avx512_bf16 alone: without AMX, bf16 took 1.2 to 1.6 times as long as fp32, in training and prediction.
        has = torch.cpu.get_capabilities()
        return bool(has.get("amx_bf16") or has.get("bf16"))
    return False
