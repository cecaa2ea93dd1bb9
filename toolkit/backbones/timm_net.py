"""The nets of timm (PyTorch Image Models), by NAME=timm/<name in timm>: an extra, which takes seconds to import."""

from __future__ import annotations

import pathlib
import re
from typing import TYPE_CHECKING

from toolkit.backbones import pretrained
from toolkit.config import extras
from toolkit.system import files
from toolkit.system.console import InputError, first_line, say

if TYPE_CHECKING:
    from torch import nn

PREFIX = "timm/"
FILE = "model.safetensors"  # of trained weights, in each repository of timm's hub


def names(like: str) -> list[str]:
    """All names, read from timm's source code without importing it; and `like`, if it is a name with a tag, `net.tag`.

    Raises InputError if timm is not installed.
    """
    folder = extras.need_folder(f"NAME={like}", "timm") / "models"
    sources = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py"))]
    found = [PREFIX + name for source in sources for name in re.findall(r"^@register_model\ndef (\w+)\(", source, re.M)]
    is_tagged = like.partition(".")[0] in found and any(f"'{_plain(like)}'" in source for source in sources)
    return [*found, like] if is_tagged and like not in found else found


def build(name: str, size: tuple[int, int], outputs: int, weights: pathlib.Path | None = None) -> nn.Module:
    """The net, with a fresh head of `outputs` columns; timm loads the weights, a file in its format, if given.

    Raises InputError if timm is not installed, or if the net does not take photographs of `size`.
    """
    extras.need(f"NAME={name}", "timm")
    import timm

    config = timm.get_pretrained_cfg(_plain(name))
    # Nets with a fixed input size are built for this one; timm resizes the weights that depend on it.
    options, of_file = ({"img_size": size} if config.fixed_input_size else {}), ""
    if weights:
        of_file = f" from {weights}"
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(weights), "custom_load": False}}
    try:
        return timm.create_model(_plain(name), num_classes=outputs, **options)
    except Exception as error:  # each net has conditions of its own; and the file may be damaged
        reason = first_line(error)
        raise InputError(f"NAME={name} cannot be built for SIZE={size[0]}x{size[1]}{of_file}: {reason}") from None


def trained_weights(name: str) -> pretrained.Trained:
    """The file, from the Hugging Face cache or downloaded; `build` loads it. Raises InputError if both fail."""
    extras.need(f"NAME={name}", "timm", "huggingface_hub")
    import huggingface_hub
    import timm

    config = timm.get_pretrained_cfg(_plain(name))
    hub = config.hf_hub_id
    if not hub:
        remedy = f"download {config.url} and give its path as WEIGHTS" if config.url else "set WEIGHTS=none, or a file"
        raise InputError(f"WEIGHTS=imagenet: timm has no {FILE} for {name}; {remedy}")
    try:
        file = huggingface_hub.try_to_load_from_cache(hub, FILE)
        if not isinstance(file, str):
            say(f"downloading {FILE} of {hub} from Hugging Face")
            file = huggingface_hub.hf_hub_download(hub, FILE)
    except Exception as error:  # no network, no such file, a full disk: the remedy is the same
        reason = first_line(error)
        raise InputError(
            f"WEIGHTS=imagenet: expected {FILE} of {hub} in the Hugging Face cache, which cannot be had ({reason}); "
            f"fill the cache elsewhere (HF_HOME moves it), or give the file's path as WEIGHTS, or take "
            f"{pretrained.WITHOUT_NETWORK}"
        ) from None
    return pretrained.Trained(hub, pathlib.Path(file), files.sha256(pathlib.Path(file)))


def _plain(name: str) -> str:
    return name.removeprefix(PREFIX)
