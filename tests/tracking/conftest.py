"""One database for many tests, each with an experiment of its own: to make one takes seconds."""

import pytest

from pti_pipeline.tracking.store import connect


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/mlflow.db"


@pytest.fixture
def experiment(database, tmp_path, monkeypatch):
    """A fresh experiment's id, and a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    made = str(connect().create_experiment(str(tmp_path)))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", made)
    return made
