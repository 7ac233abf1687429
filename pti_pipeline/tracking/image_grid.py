"""Pictures of MLflow's image grid, as a run's artifacts name them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlflow import MlflowClient

FOLDER = "images"
NAME = re.compile(
    r"(?P<key>.+)[+%]step[+%](?P<step>\d+)[+%]timestamp[+%](?P<time>\d+)[+%][^/+%]+"
    r"(?P<small>[+%]compressed)?\.(png|webp)"
)
"""What ``MlflowClient.log_image`` calls its two files, in this version or an earlier one."""


@dataclass(frozen=True)
class Picture:
    """One file of the image grid.

    Attributes
    ----------
    key : str
    step : int
    time : int
        When it was logged, in milliseconds since 1970.
    path : str
        Of the artifact.
    small : bool
        Whether it is the copy that the grid shows.
    """

    key: str
    step: int
    time: int
    path: str
    small: bool


def pictures(client: MlflowClient, run_id: str) -> list[Picture]:
    """List the files of a run's image grid, the earliest first."""
    found = []
    for file in client.list_artifacts(run_id, FOLDER):
        folder, _, last = file.path.rpartition("/")
        if folder == FOLDER and (name := NAME.fullmatch(last)):
            key, numbers = name["key"].replace("~", "/"), (int(name["step"]), int(name["time"]))
            found.append(Picture(key, *numbers, file.path, bool(name["small"])))
    return sorted(found, key=lambda picture: (picture.step, picture.time))
