"""What processes are run with. To be imported before torch is."""

import os
import platform
import sys

ALLOCATORS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Torch's name for its allocator's settings, and the older one."""
SEGMENTS = "expandable_segments:True"
"""Of the allocator, which else loses gibibytes between blocks (docs/reference/memory.md)."""

# OpenMP's threads spin while they wait; on a busy machine that costs several times the work itself.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# It would let torch run what a pickle says, also in the processes that are started from here.
os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
# Drivers for Windows' Linux and small boards refuse such segments (pytorch/pytorch#192330).
windows = "microsoft" in platform.release().lower()
if sys.platform == "linux" and platform.machine() == "x86_64" and not windows:
    if not any(name in os.environ for name in ALLOCATORS):
        os.environ[ALLOCATORS[0]] = SEGMENTS
