"""The pivot: a placeholder token's learned embedding, and how a text encoder reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from pti_pipeline.errors import ModelError
from pti_pipeline.weights import BUNDLED, read_weights, refuse_pickle, write_weights

LONGEST = 64
"""Characters of a placeholder token, at most."""


@dataclass(frozen=True)
class Pivot:
    """A placeholder token's learned vectors.

    Attributes
    ----------
    token : str
        Placeholder token, e.g. ``"<mochi>"``.
    initializer : str
        Initializer token: the word that the vectors started from.
    embedding : Tensor, shape (n, H), float32
        The vectors.
    start : Tensor, shape (n, H), float32
        Where they started: the initializer's row, ``n`` times.
    """

    token: str
    initializer: str
    embedding: Tensor
    start: Tensor


def is_word(token: str) -> bool:
    """Tell whether a text can be a placeholder token: a word that can be printed.

    Examples
    --------
    >>> is_word("<mochi>"), is_word("two words"), is_word("a" * 100)
    (True, False, False)
    """
    return 0 < len(token) <= LONGEST and token.isprintable() and " " not in token


def placeholder_tokens(token: str, vectors: int) -> list[str]:
    """Tokens that stand for ``vectors`` vectors, named as diffusers names them.

    Examples
    --------
    >>> placeholder_tokens("<mochi>", 3)
    ['<mochi>', '<mochi>_1', '<mochi>_2']
    """
    return [token, *(f"{token}_{i}" for i in range(1, vectors))]


def expand(prompt: str, tokens: Sequence[str]) -> str:
    """Write out each token together with those that :func:`placeholder_tokens` put after it.

    Examples
    --------
    >>> expand("<a> beside <b>", ["<a>", "<a>_1", "<b>"])
    '<a> <a>_1 beside <b>'
    """
    groups: list[list[str]] = []
    for token in tokens:
        if groups and token == f"{groups[-1][0]}_{len(groups[-1])}":
            groups[-1].append(token)
        else:
            groups.append([token])
    for group in groups:
        prompt = prompt.replace(group[0], " ".join(group))
    return prompt


class PackedEmbedding(nn.Module):
    """An embedding table whose placeholder rows differ from experiment to experiment.

    Ids below the vocabulary's size V read the frozen table; id V + j reads vector j of the row's
    own experiment. Rows are experiment-major.

    Parameters
    ----------
    table : Tensor, shape (V, H)
        Frozen.
    vectors : Tensor, shape (K, n, H)
        Of K experiments; gradients reach these alone.
    """

    def __init__(self, table: Tensor, vectors: Tensor) -> None:
        super().__init__()
        self.table, self.vectors = table.detach(), vectors

    def forward(self, ids: Tensor) -> Tensor:
        """Embed ids of shape (K b, L) as (K b, L, H)."""
        experiments, n, width = self.vectors.shape
        slot = ids - len(self.table)
        words = F.embedding(ids.clamp(max=len(self.table) - 1), self.table)
        experiment = torch.arange(experiments, device=ids.device)
        own = experiment.repeat_interleave(len(ids) // experiments)[:, None]
        learned = F.embedding(own * n + slot.clamp(min=0), self.vectors.reshape(-1, width))
        return torch.where((slot >= 0)[..., None], learned.to(words.dtype), words)


@contextmanager
def attached(text_encoder: nn.Module, vectors: Tensor) -> Iterator[None]:
    """Let ``text_encoder`` read ``vectors`` (K, n, H) at the placeholder ids, for a while."""
    table = text_encoder.get_input_embeddings()  # type: ignore[operator]
    text_encoder.set_input_embeddings(PackedEmbedding(table.weight, vectors))  # type: ignore[operator]
    try:
        yield
    finally:
        text_encoder.set_input_embeddings(table)  # type: ignore[operator]


def save_pivot(pivot: Pivot, path: Path) -> None:
    """Write the file that diffusers' ``load_textual_inversion`` reads, with the start beside it."""
    start = json.dumps(pivot.start[0].tolist())
    metadata = {"token": pivot.token, "initializer": pivot.initializer, "start": start}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_weights(path, {pivot.token: pivot.embedding.float()}, metadata)


def load_pivot(path: Path) -> Pivot:
    """Read what :func:`save_pivot` wrote.

    Raises
    ------
    ModelError
        If the file may be a pickle, holds no pivot, or one that is not finite.
    """
    refuse_pickle(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            facts = file.metadata()
            token, initializer = facts["token"], facts["initializer"]
            embedding = file.get_tensor(token)
            start = torch.tensor(json.loads(facts["start"])).float().expand_as(embedding)
        if not is_word(token):
            raise ValueError(f"its token is {token[:LONGEST]!r}")
        if embedding.ndim != 2 or embedding.dtype != torch.float32 or not len(embedding):
            raise ValueError(f"{embedding.dtype} of shape {tuple(embedding.shape)}")
    except Exception as error:
        raise ModelError(
            "E402", f"'{path.name}' holds no pivot ({error})", "give a run of the inversion"
        ) from error
    if not (embedding.isfinite().all() and start.isfinite().all()):
        raise ModelError(
            "E403", f"the embedding in '{path.name}' is not finite", "invert at a lower rate"
        )
    return Pivot(token, initializer, embedding, start)


def load_embedding(path: Path, width: int) -> Tensor:
    """Read a learned embedding made elsewhere, as diffusers, kohya or ComfyUI write it.

    Parameters
    ----------
    path : Path
        A ``.safetensors`` file with one tensor, whatever its name, or a LoRA's with one inside.
    width : int
        Of the base's embeddings, H.

    Returns
    -------
    Tensor, shape (n, H), float32

    Raises
    ------
    ModelError
        If the file may be a pickle, holds anything else, or vectors that are not finite.
    """
    refuse_pickle(path)
    hint = f"give a file with one tensor of {width} columns"
    try:
        found = read_weights(path)[0]
    except Exception as error:
        raise ModelError("E412", f"can't read '{path.name}' ({error})", hint) from error
    inside = [tensor for name, tensor in found.items() if name.startswith(BUNDLED)]
    tensors = inside or list(found.values())
    shapes = ", ".join("x".join(map(str, t.shape)) for t in tensors) or "nothing"
    if len(tensors) != 1 or tensors[0].ndim not in (1, 2) or tensors[0].shape[-1] != width:
        raise ModelError("E412", f"'{path.name}' holds {shapes}, no embedding", hint)
    if not tensors[0].isfinite().all():
        raise ModelError("E403", f"the embedding in '{path.name}' is not finite", "train it again")
    return tensors[0].float().reshape(-1, width)


def has_embedding_inside(path: Path) -> bool:
    """Tell whether a LoRA's file holds its token's embedding too; not, if it can't be read."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return any(name.startswith(BUNDLED) for name in file.keys())  # noqa: SIM118
    except Exception:
        return False
