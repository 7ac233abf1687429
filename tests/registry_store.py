"""A store of a module's own, and a character registered in it."""

from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from registered import write_sweep
from stores import store_in

from pti_pipeline.families import load
from pti_pipeline.steps.register import register


@pytest.fixture(scope="session")
def world():
    return load("world", "cpu")


@pytest.fixture(scope="module")
def registry_store(tmp_path_factory):
    """One store for all tests of a module: each registers models of its own."""
    folder = tmp_path_factory.mktemp("store")
    with store_in(folder):
        yield folder


@pytest.fixture(scope="module")
def mei(world, registry_store):
    """A character that a sweep chose, registered."""
    sweep, run = write_sweep(world, "<mei>", vectors=2)
    made = register(sweep, "", "champion")
    version = MlflowClient().get_model_version_by_alias("mei", "champion")
    return SimpleNamespace(sweep=sweep, run=run, made=made, version=version)
