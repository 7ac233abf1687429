"""Libraries that speak up at import, hushed: they tell nothing to someone who runs a command.

To be imported before them.
"""

import logging
import os

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
LOUDEST = {
    "alembic": logging.WARNING,
    "bitsandbytes": logging.ERROR,
    "mlflow.system_metrics": logging.WARNING,
}
"""From which level on each may speak."""

for speaker, level in LOUDEST.items():
    logging.getLogger(speaker).setLevel(level)
