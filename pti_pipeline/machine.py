"""What this process may use of its machine: cores and memory."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import torch

from pti_pipeline.values import own_number


def cores() -> int:
    """Cores that this process may run on; a container's share of them counts."""
    there = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        there = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(there, int(quota) // int(period)))
    except (OSError, ValueError):
        return there  # no container, or one without a bound


def free_bytes(device: torch.device) -> int:
    """Memory that is free on ``device``; on the CPU, this process's share of it.

    A container's own bound counts, and so do the ``PTI_PLACES`` processes that run side by side.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + cached)
    free = int(psutil.virtual_memory().available)
    try:
        group = Path("/sys/fs/cgroup")
        bound = int((group / "memory.max").read_text())
        free = min(free, bound - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no container, or one without a bound
    return free // own_number("PTI_PLACES", 1)
