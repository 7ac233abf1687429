"""Files of weights: safetensors, with what their headers say in text."""

from __future__ import annotations

import io
import json
import pickletools
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from pti_pipeline.errors import ModelError

BUNDLED = "bundle_emb."
"""What the names of an embedding begin with inside a LoRA's file, before its word."""

OUR_KEY = "pti"
"""Key of a LoRA file's header for what peft's config does not know: JSON."""


SUFFIX = ".safetensors"
PICKLED = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
"""Endings of files that their tools write as pickles."""
LONG = 2**16
"""Bytes from which on a text is not read to its end, to see whether it is a pickle."""


def refuse_pickle(path: Path) -> None:
    """Raise ``ModelError`` if a file may hold a pickle, by its name or by its bytes.

    Nothing is unpickled to find that out. What is no safetensors file and no pickle either is left
    to who reads it; so is a file that isn't there.
    """
    if path.suffix.lower() != SUFFIX or (path.is_file() and _looks_pickled(path)):
        what = f"'{path.name}' may hold a pickle, which can run code"
        raise ModelError("E410", what, f"convert it to {SUFFIX}")


def refuse_pickles(folder: Path) -> None:
    """Raise ``ModelError`` if weights in a folder, or below, may be pickles."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (SUFFIX, *PICKLED):
            refuse_pickle(path)


def _looks_pickled(path: Path) -> bool:
    """Tell whether a file is no safetensors, and begins as pickles and torch's zips do.

    A safetensors file begins with its header's length, which can be any bytes, and a brace. The
    oldest pickles are text that ends in a dot: a long one of that kind is taken for a pickle.
    """
    with path.open("rb") as file:
        head = file.read(LONG)
        file.seek(max(0, path.stat().st_size - 1))
        last = file.read(1)
    if head[8:9] == b"{":
        return False
    if head[:1] == b"\x80" or head[:4] == b"PK\x03\x04":
        return True
    return last == b"." and (len(head) == LONG or _are_opcodes(head))


def _are_opcodes(data: bytes) -> bool:
    """Whether bytes begin with a pickle: what it says is listed, and none of it is done."""
    try:
        pickletools.dis(data, io.StringIO())
    except (ValueError, IndexError):  # the second by opcodes that do not fit each other
        return False
    return True


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file's tensors, on the CPU, and its header's text."""
    with safe_open(path, framework="pt", device="cpu") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}


def write_weights(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write tensors under a header, the same to the byte every time.

    Raises
    ------
    OSError
        If it can't be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path.write_bytes(_in_order(save(plain, dict(header))))


def _in_order(data: bytes) -> bytes:
    """Sort the text of a file's header, which safetensors leaves in the order of a hash table."""
    end = 8 + int.from_bytes(data[:8], "little")
    facts = json.loads(data[8:end])
    if words := facts.get("__metadata__"):
        facts["__metadata__"] = dict(sorted(words.items()))
    text = json.dumps(facts, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin where 8 bytes do
    return len(text).to_bytes(8, "little") + text + data[end:]
