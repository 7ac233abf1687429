"""Values of parameters that would like to be shell code, through MLflow's own building of commands.

``python -m faults.injection`` prints the numbers; ``executions``, ``changed`` and ``failed`` should
be 0.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.projects._project_spec import load_project

from faults.texts import TEXTS

ROOT = Path(__file__).parents[1]
TOGETHER = 10
"""Commands in one call of bash."""
PAIRS = (TEXTS[0:2], TEXTS[2:4], TEXTS[4:6], TEXTS[6:8])
"""Payloads of real runs: names of the folder of pictures, and of the file of prompts."""
ECHO = f"#!{sys.executable} -IS\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"
"""Stands in for Python: says what it was called with."""


def cases(long: bool) -> Iterator[tuple[str, dict[str, str]]]:
    """Entry points with values of their parameters.

    In the short form every parameter has a payload at a time, another one each time: all meet all.
    In the long form they come one by one, too.
    """
    for name, parameters in entry_points().items():
        for turn in range(len(TEXTS)):
            mixed = {p: TEXTS[(i + turn) % len(TEXTS)] for i, p in enumerate(parameters)}
            yield name, mixed
        if long:
            for each in parameters:
                for text in TEXTS:
                    yield name, {**parameters, each: text}


def entry_points() -> dict[str, dict[str, str]]:
    """Parameters of every entry point, with their defaults."""
    found = load_project(str(ROOT))._entry_points
    return {
        name: {key: str(parameter.default or "") for key, parameter in entry.parameters.items()}
        for name, entry in found.items()
    }


def measure(long: bool = False) -> dict[str, float]:
    """Count what the shell made of the payloads.

    Returns
    -------
    dict of str to float
        ``parameters``, ``payloads`` and ``commands``; ``executions``, files that a payload made;
        ``changed``, values that arrived as others; ``real_runs`` of ``mlflow run``, in the long
        form alone, and those ``failed`` that did not find what the payloads name.
    """
    asked = [*cases(long)]
    with TemporaryDirectory() as folder:
        arrived = [
            argv
            for start in range(0, len(asked), TOGETHER)
            for argv in run_all(asked[start : start + TOGETHER], Path(folder))
        ]
        made = len([*Path(folder).iterdir()]) - 1
    wanted = [expected(name, values) for name, values in asked]
    changed = sum(a != b for a, b in zip(arrived, wanted, strict=False))
    found = {
        "parameters": sum(map(len, entry_points().values())),
        "payloads": len(TEXTS),
        "commands": len(asked),
        "executions": made,
        "changed": changed + abs(len(arrived) - len(wanted)),
    }
    return found | really(PAIRS if long else ())


def run_all(asked: Sequence[tuple[str, Mapping[str, str]]], folder: Path) -> list[list[str]]:
    """Run commands as MLflow does, in ``folder``; return what each program was called with."""
    project = load_project(str(ROOT))
    commands = [project.get_entry_point(n).compute_command(dict(v), None) for n, v in asked]
    program = folder / "bin" / "python"
    program.parent.mkdir(exist_ok=True)
    program.write_text(ECHO)
    program.chmod(0o755)
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(folder)}
    done = subprocess.run(
        ["bash", "-c", "\n".join(commands)],
        cwd=folder,
        env=environment,
        capture_output=True,
        check=False,
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"[")]


def expected(name: str, values: Mapping[str, str]) -> list[str]:
    """What the program should be called with."""
    options = [f"--{key.replace('_', '-')}={value}" for key, value in values.items()]
    return ["-m", "pti_pipeline", name, *options]


def really(pairs: Sequence[Sequence[str]]) -> dict[str, float]:
    """Train a step with hostile names, by ``mlflow run``, once for each pair."""
    failed = 0
    with TemporaryDirectory() as place:
        for index, (images, preview) in enumerate(pairs):
            failed += not run_really(images, preview, Path(place) / str(index))
    return {"real_runs": len(pairs), "failed": failed}


def run_really(images: str, preview: str, folder: Path) -> bool:
    """Invert for a step, from a folder and a file of such names; tell if they were found."""
    pictures, prompts = (folder / name.replace("/", "") for name in (images, preview))
    shutil.copytree(ROOT / "examples" / "mochi", pictures)
    prompts.write_text("{} asleep", "utf-8")
    before = {path.name for path in (*folder.iterdir(), *ROOT.iterdir())}
    values = {"images": pictures, "preview": prompts, "steps": 1, "sample_every": 1, "probes": 0}
    words = [f"-P{key}={value}" for key, value in values.items()]
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "-einvert", "--env-manager=local"]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        [*command, *words], cwd=folder, env=environment, capture_output=True, check=False
    )
    after = {path.name for path in (*folder.iterdir(), *ROOT.iterdir())}
    made = after - before - {"mlflow.db", "mlruns", ".pti", ".mlflow.db.lock"}
    if done.returncode or made:
        print(images, preview, made, done.stderr.decode()[-500:], file=sys.stderr)
        return False
    return _tagged(folder) == str(pictures.resolve())


def _tagged(folder: Path) -> str:
    """Folder of pictures that the run tells of."""
    from mlflow import MlflowClient

    (run,) = MlflowClient(f"sqlite:///{folder}/mlflow.db").search_runs(["0"])
    return str(run.data.tags["pti.images"])


if __name__ == "__main__":
    print(measure("--long" in sys.argv))
