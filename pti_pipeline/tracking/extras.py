"""What a run is as good without: it is logged if the store takes it, and never fails a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def best_effort(what: str) -> Iterator[None]:
    """Make one line of warning of whatever goes wrong inside: that there is no ``what``."""
    try:
        yield
    except Exception as error:
        why = str(error).strip().partition("\n")[0][:120]
        logging.getLogger(__name__).warning("The MLflow UI has no %s (%s).", what, why)
