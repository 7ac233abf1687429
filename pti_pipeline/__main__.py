"""``python -m pti_pipeline`` is the command ``pti``."""

from pti_pipeline.cli import main

main()
