"""Files of tensors with a checksum: safetensors, which hold numbers and texts, and no code.

The header holds the SHA-256 of the whole file. It is checked before any tensor is used.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from safetensors import SafetensorError, safe_open

from toolkit.system.console import InputError
from toolkit.system.files import damaged, replacing

if TYPE_CHECKING:
    from torch import Tensor

CHECKSUM = "checksum"  # key in the header
PLACEHOLDER = "0" * 64  # in place of the checksum while it is computed
STATED = re.compile(rb'"checksum":"\\"([0-9a-f]{64})\\""')
LONGEST_HEADER = 100_000_000  # bytes, as in safetensors


def save(path: pathlib.Path, tensors: dict[str, Tensor], header: dict) -> None:
    """Write tensors and a header of plain types in one durable step. Raises InputError if it cannot be written."""
    from safetensors.torch import save_file  # and with it torch, which takes seconds

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    storages = set()
    for name, tensor in tensors.items():  # safetensors refuses a tensor under two names
        storage = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    texts = {key: json.dumps(value) for key, value in {**header, CHECKSUM: PLACEHOLDER}.items()}
    with replacing(path, sum(tensor.nbytes for tensor in tensors.values())) as temporary:
        # In a folder of its own: safetensors writes a temporary file whose name we do not know, and a process that is
        # killed would leave it for ever. `files.locked` removes this folder, as all unfinished files.
        with tempfile.TemporaryDirectory(suffix=".part", prefix=f".{path.name}.", dir=path.parent) as folder:
            try:
                save_file(tensors, pathlib.Path(folder) / path.name, texts)
            except SafetensorError as error:  # a full disk raises this, too
                number = re.search(r"os error (\d+)", str(error))
                raise OSError(int(number[1]) if number else 0, str(error)) from None
            (pathlib.Path(folder) / path.name).replace(temporary)
        checksum = _checksum(temporary)
        with temporary.open("rb+") as file:
            file.seek(checksum.position)
            file.write(checksum.found)


def read_header(path: pathlib.Path) -> dict:
    """The header, read without torch; its checksum is not checked. Raises FileNotFoundError, and else as `load`."""
    try:
        path.open("rb").close()  # safe_open reports any file that it cannot open as missing
        with safe_open(path, framework="numpy") as file:
            return parsed(file.metadata() or {})
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise _refusal(path, error) from None


def parsed(texts: Mapping[str, str]) -> dict:
    """The values of a header, each a JSON text. Raises ValueError."""
    try:
        return {key: json.loads(text) for key, text in texts.items()}
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None


def load(path: pathlib.Path) -> dict[str, Tensor]:
    """The tensors, on the CPU.

    Raises DamagedError if the file is damaged or foreign, or its checksum is wrong, and InputError if it cannot be read
    now: then it may be whole.
    """
    try:
        checksum = _checksum(path)
        if checksum.stated != checksum.found:
            raise ValueError("its checksum is wrong")
        with safe_open(path, framework="pt") as file:
            # Copies: a checkpoint is written over while its tensors are in use, and some systems refuse to replace a
            # file that is mapped into memory.
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise _refusal(path, error) from None


def _refusal(path: pathlib.Path, error: Exception) -> InputError:
    if isinstance(error, OSError) and error.errno:  # by the system: no rights, too many open files, a failing disk
        return InputError(f"{path}: cannot be read now: {error.strerror}; it stays as it is; mend that and start again")
    return damaged(path, error)


class _Checksum(NamedTuple):
    position: int  # in the file, in bytes
    stated: bytes  # at that position, in hexadecimal
    found: bytes  # computed, with PLACEHOLDER at that position


def _checksum(path: pathlib.Path) -> _Checksum:
    """The checksum that the header states, and the computed one. Raises ValueError if none is stated."""
    with path.open("rb") as file:
        head = file.read(8)
        head += file.read(min(int.from_bytes(head, "little"), LONGEST_HEADER))
        stated = STATED.search(head)
        if not stated:
            raise ValueError("it has no checksum")
        begin, end = stated.span(1)
        digest = hashlib.sha256(head[:begin] + PLACEHOLDER.encode() + head[end:])
        while content := file.read(2**20):
            digest.update(content)
    return _Checksum(begin, stated[1], digest.hexdigest().encode())
