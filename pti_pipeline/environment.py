"""What processes are run with. To be imported before torch is."""

import os
import sys

# OpenMP's threads spin while they wait; on a busy machine that costs several times the work itself.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# It would let torch run what a pickle says, also in the processes that are started from here.
os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
# Else a GPU's allocator loses up to 3 GiB between blocks: docs/reference/memory.md.
ALLOCATORS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Torch's name for its allocator's settings, and the one before 2.9."""
if sys.platform == "linux" and not any(name in os.environ for name in ALLOCATORS):
    os.environ[ALLOCATORS[0]] = "expandable_segments:True"
