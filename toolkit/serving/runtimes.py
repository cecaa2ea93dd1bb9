"""The runtimes that RUNTIME selects: torch, which runs the weights, or onnxruntime, which runs the ONNX file.

Both classes have the same attributes and methods, so that callers treat them alike.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from toolkit.config import extras
from toolkit.config.settings import InferenceSettings
from toolkit.labels import CLASSES
from toolkit.models import onnx_file
from toolkit.runs.folders import EXPORTED
from toolkit.runs.weights import WEIGHTS, Header, read_header

if TYPE_CHECKING:
    from torch import nn

    from toolkit.data.store import Store
    from toolkit.scoring.decision import Decision
    from toolkit.system.device import Machine

LoadWeights = Callable[[pathlib.Path], "tuple[nn.Module, Header]"]  # path of the weights -> model on the CPU, header


def choose(config: InferenceSettings, load_weights: LoadWeights) -> TorchRuntime | OnnxRuntime:
    """The runtime of RUNTIME. Raises InputError where its packages are missing."""
    return OnnxRuntime(config) if config.runtime == "onnx" else TorchRuntime(config, load_weights)


class TorchRuntime:
    """Runs `model.safetensors` with torch, on the device and in the precision of the settings."""

    file = WEIGHTS
    read_header = staticmethod(read_header)

    def __init__(self, config: InferenceSettings, load_weights: LoadWeights):
        self.config, self.device, self.load_weights = config, config.device, load_weights

    def __str__(self) -> str:
        return str(self.machine)

    @cached_property
    def machine(self) -> Machine:
        """The device and precision. Raises InputError if the device does not exist."""
        from toolkit.system import device  # imports torch

        return device.choose(self.config.device, self.config.precision)

    def load(self, run: pathlib.Path) -> nn.Module:
        """The model of a run, on the device. Raises InputError where its file is damaged or foreign."""
        from toolkit.models import placement

        model, _ = self.load_weights(run / self.file)
        return placement.to_device(model, self.machine)

    def prepare_for_requests(self, model: nn.Module, size: tuple[int, int]) -> nn.Module:
        """The model with batch norm fused, once for all: fusing takes as long as predicting five photographs."""
        import torch

        from toolkit.models import fuse_batch_norm, placement

        example = torch.rand(1, 3, *size, device=self.machine.device)
        fused = placement.to_device(fuse_batch_norm.fuse(model.eval(), example), self.machine)
        fused.is_fused = True
        return fused

    def predict(self, model: nn.Module, store: Store, header: Header, decision: Decision) -> np.ndarray:
        """Calibrated probabilities of the photographs in the store: float64, shape (n, 18)."""
        from toolkit.data.loader import Loader
        from toolkit.models import factored_head
        from toolkit.models.predict import Mirrored, predict
        from toolkit.system import device

        loader = Loader(store, self.machine, header.mean, header.std)
        views = [model, Mirrored(model)] if self.config.tta else [model]
        found = []
        with device.out_of_memory_advice("BATCH_SIZE"):
            for view in views:
                outputs = predict(view, loader, np.arange(len(store)), self.config.batch_size, decision.adjusted)
                if self.config.old_from is not None:
                    outputs = factored_head.with_old_from(outputs, self.config.old_from)
                found.append(decision.probabilities(outputs[:, :CLASSES].numpy()))
        return np.mean(found, 0)


class OnnxRuntime:
    """Runs `model.onnx` with onnxruntime on the CPU. The file itself normalises and calibrates."""

    file = EXPORTED
    read_header = staticmethod(onnx_file.read_header)
    device = "cpu"

    def __init__(self, config: InferenceSettings):
        extras.need("RUNTIME=onnx", "onnxruntime")
        self.config = config

    def __str__(self) -> str:
        return f"{self.machine}, {onnx_file.version()}"

    @cached_property
    def machine(self) -> Machine:
        from toolkit.system import device  # imports torch

        return device.choose(self.device, "fp32")

    def load(self, run: pathlib.Path) -> onnx_file.OnnxModel:
        """The model of a run. Raises InputError where its file is damaged or foreign."""
        return onnx_file.OnnxModel(run / self.file)

    def prepare_for_requests(self, model: onnx_file.OnnxModel, size: tuple[int, int]) -> onnx_file.OnnxModel:
        return model

    def predict(self, model: onnx_file.OnnxModel, store: Store, header: Header, decision: Decision) -> np.ndarray:
        """Calibrated probabilities of the photographs in the store: float64, shape (n, 18)."""
        batch_size = self.config.batch_size or self.machine.prediction_batch_size(store.size)
        return model.predict(store, batch_size, mirrored=self.config.tta)
