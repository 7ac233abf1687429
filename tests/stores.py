"""A tracking store of one's own, for a test or for all tests of a file."""

from contextlib import contextmanager

import pytest


def keep_in(folder, patch):
    """Work in ``folder``, and keep runs in its database."""
    patch.chdir(folder)
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        patch.delenv(name, raising=False)


@contextmanager
def store_in(folder):
    """The same for a while."""
    with pytest.MonkeyPatch.context() as patch:
        keep_in(folder, patch)
        yield patch
