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

ENCODERS = ("clip_l", "clip_g")
"""What files call the parts of a token that two CLIP text encoders read."""
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
    widths : tuple of int
        Columns that are each text encoder's; () if there is one.
    """

    token: str
    initializer: str
    embedding: Tensor
    start: Tensor
    widths: tuple[int, ...] = ()


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
def attached(text_encoders: Sequence[nn.Module], vectors: Tensor) -> Iterator[None]:
    """Let text encoders read ``vectors`` (K, n, H) at the placeholder ids, for a while.

    Each reads its own columns of them: H is the sum of their embeddings' widths.
    """
    tables = [encoder.get_input_embeddings() for encoder in text_encoders]  # type: ignore[operator]
    parts = vectors.split([table.embedding_dim for table in tables], -1)
    try:
        for encoder, table, part in zip(text_encoders, tables, parts, strict=True):
            encoder.set_input_embeddings(PackedEmbedding(table.weight, part))  # type: ignore[operator]
        yield
    finally:
        for encoder, table in zip(text_encoders, tables, strict=True):
            encoder.set_input_embeddings(table)  # type: ignore[operator]


def save_pivot(pivot: Pivot, path: Path) -> None:
    """Write the file that diffusers' ``load_textual_inversion`` reads, with the start beside it.

    Of several text encoders each has its own tensor, as diffusers' trainers name them, and that
    loader takes one tensor at a time.
    """
    start = json.dumps(pivot.start[0].tolist())
    metadata = {"token": pivot.token, "initializer": pivot.initializer, "start": start}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_weights(path, by_encoder(pivot, pivot.token), metadata)


def by_encoder(pivot: Pivot, alone: str) -> dict[str, Tensor]:
    """Vectors of each text encoder, by what they are called in files: ``alone`` if there is one."""
    if len(pivot.widths) < 2:
        return {alone: pivot.embedding.float()}
    parts = pivot.embedding.float().split(pivot.widths, 1)
    return {name: part.contiguous() for name, part in zip(ENCODERS, parts, strict=True)}


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
            names = [token] if token in file.keys() else ENCODERS  # noqa: SIM118
            parts = [file.get_tensor(name) for name in names]
            embedding = torch.cat(parts, -1)
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
    widths = tuple(part.shape[1] for part in parts)
    return Pivot(token, initializer, embedding, start, widths if len(widths) > 1 else ())


def load_embedding(path: Path, widths: Sequence[int]) -> Tensor:
    """Read a learned embedding made elsewhere, as diffusers, kohya or ComfyUI write it.

    Parameters
    ----------
    path : Path
        A ``.safetensors`` file with one tensor, whatever its name, or one for each of two text
        encoders by the names of :data:`ENCODERS`; or a LoRA's with these inside.
    widths : sequence of int
        Of the base's embeddings; H is the sum.

    Returns
    -------
    Tensor, shape (n, H), float32

    Raises
    ------
    ModelError
        If the file may be a pickle, holds anything else, or vectors that are not finite.
    """
    refuse_pickle(path)
    columns = " and one of ".join(f"{width} columns" for width in widths)
    hint = f"give a file with one tensor of {columns}"
    try:
        found = read_weights(path)[0]
    except Exception as error:
        raise ModelError("E412", f"can't read '{path.name}' ({error})", hint) from error
    inside = {name: tensor for name, tensor in found.items() if name.startswith(BUNDLED)}
    named = inside or found
    tensors = [named[name] for name in sorted(named, key=_encoder)]
    shapes = ", ".join("x".join(map(str, t.shape)) for t in tensors) or "nothing"
    fits = [
        t.ndim in (1, 2) and t.shape[-1:] == (w,) for t, w in zip(tensors, widths, strict=False)
    ]
    rows = {len(t.reshape(-1, t.shape[-1])) for t in tensors if t.ndim}
    if len(tensors) != len(widths) or not all(fits) or len(rows) != 1:
        raise ModelError("E412", f"'{path.name}' holds {shapes}, no embedding of this base", hint)
    vectors = torch.cat([t.float().reshape(-1, w) for t, w in zip(tensors, widths, strict=True)], 1)
    if not vectors.isfinite().all():
        raise ModelError("E403", f"the embedding in '{path.name}' is not finite", "train it again")
    return vectors


def _encoder(name: str) -> int:
    """Place among :data:`ENCODERS` of one that a tensor's name ends in."""
    ends = [name.endswith(encoder) for encoder in ENCODERS]
    return ends.index(True) if any(ends) else len(ends)


def has_embedding_inside(path: Path) -> bool:
    """Tell whether a LoRA's file holds its token's embedding too; not, if it can't be read."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return any(name.startswith(BUNDLED) for name in file.keys())  # noqa: SIM118
    except Exception:
        return False
