"""Norms of token vectors against those of the vocabulary.

With several text encoders a vector is one part for each, and every part has a norm of its own:
``widths`` are the parts' lengths, which add up to H.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def median_norms(table: Tensor, widths: Sequence[int]) -> Tensor:
    """Median norm of a vocabulary's rows (V, H), part by part; (parts,), float64."""
    parts = table.double().split(list(widths), 1)
    return torch.stack([part.norm(dim=1).median() for part in parts])


def rescaled(vectors: Tensor, norms: Tensor, widths: Sequence[int]) -> Tensor:
    """Vectors (..., H) each of whose parts has the norm that ``norms`` (parts,) says."""
    parts = vectors.split(list(widths), -1)
    shares = [n / p.double().norm(dim=-1, keepdim=True) for n, p in zip(norms, parts, strict=True)]
    scaled = [p * s.to(p.dtype) for p, s in zip(parts, shares, strict=True)]
    return torch.cat(scaled, -1)
