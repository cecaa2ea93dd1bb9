"""Apple's GPU, where there is none: tensors that say so of themselves, and take no float64, as those there."""

import torch


class Metal(torch.Tensor):
    """A tensor on the CPU; so is whatever is computed from it."""

    is_mps = True

    @classmethod
    def __torch_function__(cls, function, types, given=(), named=None):
        found = super().__torch_function__(function, types, given, named)
        if isinstance(found, torch.Tensor) and found.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return found


def metal(tensor: torch.Tensor) -> Metal:
    return tensor.as_subclass(Metal)
