import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from pti_pipeline.cli import main
from pti_pipeline.tracking.store import connect

ROOT = Path(__file__).parents[2]
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text("utf-8"))
ENTRIES = PROJECT["entry_points"]


def test_every_command_is_an_entry_point():
    shown = {name for name, command in main.commands.items() if not command.hidden}
    assert set(ENTRIES) == shown - {"families", "memory", "sync", "ui", "world"}  # no steps


@pytest.mark.parametrize("name", ENTRIES)
def test_parameters_and_defaults_are_the_commands(name):
    options = {o.name: o for o in main.commands[name].params}
    entry = ENTRIES[name]
    assert list(entry["parameters"]) == list(options)
    for key, declared in entry["parameters"].items():
        option = options[key]
        if option.required:
            assert declared == "string"
            continue
        assert str(declared["default"]) == str(option.default)
        kind = {"int": int, "float": float, "string": str}[declared["type"]]
        assert type(declared["default"]) is kind
        if kind is float:
            assert str(float(str(declared["default"]))) == str(declared["default"])


@pytest.mark.parametrize("name", ENTRIES)
def test_placeholders_are_bare(name):
    """A quoted placeholder would let a parameter's value run as shell code."""
    command = ENTRIES[name]["command"]
    assert command.startswith(f"python -m pti_pipeline {name} ")
    words = command.split()[4:]
    assert [re.fullmatch(r"--([a-z-]+)=\{([a-z_]+)\}", w) is not None for w in words]
    assert [w.split("=")[1].strip("{}") for w in words] == list(ENTRIES[name]["parameters"])
    assert not set(command) & set("'\"$;|&")


def test_conda_pins_every_dependency_exactly():
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text("utf-8"))
    python, _, pip = conda["dependencies"]
    assert re.fullmatch(r"python=3\.11\.\d+", python)
    pinned = {re.fullmatch(r"([a-z-]+)==[0-9.]+", p).group(1) for p in pip["pip"]}
    setup = (ROOT / "setup.cfg").read_text("utf-8")
    required = setup.split("install_requires =\n")[1].split("\n\n")[0].split()
    assert pinned == {re.match(r"[a-z-]+", r).group() for r in required}


def mlflow_run(folder, *words):
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager", "local"]
    return subprocess.run(
        [*command, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_mlflow_run_inverts(store):
    done = mlflow_run(store, "-e", "invert", "-P", "lr=5e-3", "-P", "steps=2")
    assert done.returncode == 0, done.stderr
    (run,) = connect().search_runs(["0"], "attributes.status = 'FINISHED'")
    assert run.data.tags["pti.step"] == "invert"
    assert run.data.params["lr"] == "5e-3"  # as typed; the number is the metric train/lr
    assert run.data.metrics["train/lr"] == pytest.approx(0.005)
    statuses = {r.info.status for r in connect().search_runs(["0"])}
    assert "RUNNING" not in statuses


def test_the_console_script_is_the_same_program():
    assert isinstance(main, click.Group)
    setup = (ROOT / "setup.cfg").read_text("utf-8")
    assert "pti = pti_pipeline.cli:main" in setup
