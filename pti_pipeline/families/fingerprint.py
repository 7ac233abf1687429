"""Tells one base model from another, whatever its name."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from torch import nn

from pti_pipeline.families.schedules import Schedule


def fingerprint(parts: Sequence[nn.Module], schedule: Schedule) -> str:
    """Digest of all weights, of what the denoiser predicts, and at which levels of noise."""
    digest = sha256(schedule.digest())
    for part in parts:
        for name, value in sorted(part.state_dict().items()):
            if value.is_meta:
                return ""  # of a draft, which has none
            digest.update(name.encode())
            digest.update(value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()
