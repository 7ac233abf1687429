"""Who writes a run: told by its outbox here, and by signs of life elsewhere."""

import os
import socket

from pti_pipeline.tracking.find import get_run
from pti_pipeline.tracking.life import PLACE, birth, is_ours, user
from pti_pipeline.tracking.outbox import Outbox
from pti_pipeline.tracking.runs import open_run

RUN = "0123456789abcdef" * 2


def test_who_has_an_outbox_is_told(tmp_path):
    assert user(tmp_path, RUN) == ""
    box = Outbox(tmp_path, RUN)
    box.put("tags", {"a": "b"})
    assert user(tmp_path, RUN) == f"process {os.getpid()} on {socket.gethostname()}"
    (box.folder / "owner").unlink()
    assert user(tmp_path, RUN) == "another process"
    box.close()
    assert user(tmp_path, RUN) == ""


def test_the_place_of_a_store_is_made_up_once(store, monkeypatch):
    place = birth()[PLACE]
    assert birth()[PLACE] == place and len(place) == 32
    with open_run("r", {}, {"pti.step": "x"}) as run:
        pass
    written = get_run(run.id)
    assert is_ours(written)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/other/mlflow.db")
    assert birth()[PLACE] != place and not is_ours(written)
