"""From a trained model to an ONNX graph that holds everything between pixels and probabilities."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

from toolkit.labels import CLASSES
from toolkit.models import onnx_file
from toolkit.scoring.prior_correction import SMALLEST_POSTERIOR
from toolkit.system.console import InputError, first_line

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from toolkit.runs.weights import Header

OPSET = 18  # torch's exporter writes this one; it makes others by converting the graph afterwards
MOST_BYTES = 2**31 - 2**20  # of weights: a protobuf message ends at 2 GiB, and the graph needs some room too


def build(model: nn.Module, header: Header) -> onnx.ModelProto:
    """The model with normalisation before it and calibration after it, for any number of photographs.

    Raises InputError if the weights exceed what one file can hold, or torch's exporter cannot translate the model.
    """
    import torch

    whole = with_preprocessing(model.eval(), header)
    if sum(value.nbytes for value in whole.state_dict().values()) > MOST_BYTES:
        raise InputError(f"{header.backbone}: has more weights than the 2 GiB that one ONNX file can hold")
    # A batch of two, as the exporter takes a size of one for a constant.
    example = torch.zeros(2, *header.framing.size, 3, dtype=torch.uint8)
    with silent():
        try:
            program = torch.onnx.export(
                whole, (example,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[onnx_file.INPUT], output_names=[onnx_file.OUTPUT], opset_version=OPSET, verbose=False,
            )  # fmt: skip
        except Exception as error:  # the exporter and what it calls have no common exception
            reason = first_line(error.__cause__ or error)
            raise InputError(
                f"{header.backbone}: torch {torch.__version__} cannot translate this net to ONNX: {reason}"
            ) from None
    return without_source_notes(program.model_proto)


def with_preprocessing(model: nn.Module, header: Header) -> nn.Module:
    """A module from photographs, RGB, uint8, shape (b, height, width, 3), to probabilities, float32, shape (b, 18)."""
    import torch

    class PixelsToProbabilities(torch.nn.Module):
        def __init__(self):
            super().__init__()
            mean, std = torch.tensor(header.mean), torch.tensor(header.std)
            decision = header.decision
            correction = decision.prior_correction
            self.model, self.temperature, self.smoothing = model, decision.temperature, correction.smoothing
            weights, shift = map(torch.from_numpy, (correction.log_loss_weights(), correction.log_prior_shift()))
            # (x / 255 - mean) / std, as one multiplication and one addition
            buffers = {"gain": 1 / (255 * std), "offset": -mean / std, "weights": weights, "shift": shift}
            for name, value in buffers.items():
                self.register_buffer(name, value.float())

        def forward(self, photographs: torch.Tensor) -> torch.Tensor:
            # Contiguous: for other layouts the exporter adds gathers that only move memory.
            inputs = (photographs.float() * self.gain + self.offset).permute(0, 3, 1, 2).contiguous()
            # A factored head has columns for single years after the 18 classes.
            logits = self.model(inputs)[:, :CLASSES] - self.weights
            if self.smoothing:  # as PriorCorrection.log_posterior takes it out
                posterior = (logits.softmax(1) - self.smoothing / CLASSES) / (1 - self.smoothing)
                logits = posterior.clamp(min=SMALLEST_POSTERIOR).log()
            return (logits / self.temperature + self.shift).softmax(1)

    return PixelsToProbabilities().eval()


def without_source_notes(made: onnx.ModelProto) -> onnx.ModelProto:
    """`made` without the exporter's notes on every node: source files and lines, with paths of this machine."""
    graph = made.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    return made


def check_form(made: onnx.ModelProto, content: bytes, numbers: str = "float32") -> str:
    """A line about the form of the file: versions, and that it is valid. Raises InputError if onnx finds it invalid."""
    import onnx
    import torch

    try:
        onnx.checker.check_model(content, full_check=True)
    except Exception as error:  # the checker's own, or those of shape inference
        reason = first_line(error)
        raise InputError(f"onnx {onnx.__version__} finds the file that torch made invalid: {reason}") from None
    opsets = ", ".join(f"{entry.domain or 'opset'} {entry.version}" for entry in made.opset_import)
    return (
        f"ONNX {opsets}, IR version {made.ir_version}, {numbers}, made by torch {torch.__version__}; "
        f"valid, says onnx {onnx.__version__}"
    )


@contextlib.contextmanager
def silent():
    """Drops what the exporter prints, warns and logs about its own steps."""
    dropped = io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(dropped), redirect_stderr(dropped):
            yield
    finally:
        logging.disable(logging.NOTSET)
