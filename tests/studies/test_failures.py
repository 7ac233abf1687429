"""What a study, a sweep and their processes tell of what failed underneath."""

import sys
from multiprocessing import Pipe

import pytest

from pti_pipeline.errors import DEBUG, UsageError
from pti_pipeline.preview import WatchSettings
from pti_pipeline.settings import BaseSettings, InvertSettings
from pti_pipeline.studies import local, main
from pti_pipeline.studies.cluster import run_ray
from pti_pipeline.studies.local import PackFailed
from pti_pipeline.studies.packs import Pack


def test_ray_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"E219.*not installed.*pip install"):
        run_ray([])


def test_a_failed_step_ends_a_study_with_its_own_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(main, "run_command", lambda words: 10 if words[0] == "sweep" else 0)
    main._step("select", "s", {"run": "x"})
    with pytest.raises(main.StepFailed, match=r"E903.*sweep failed") as caught:
        main._step("sweep", "s", {"stage": "invert"})
    assert caught.value.exit_code == 10
    assert "== sweep invert ==" in capsys.readouterr().out


@pytest.mark.parametrize(("code", "told"), [(3, 3), (-9, 1)])
def test_a_failed_pack_ends_a_sweep_with_its_own_exit_code(code, told):
    settings = (InvertSettings(0.1),)
    pack = Pack("invert", BaseSettings(), {}, settings, WatchSettings(), name="1/2")
    error = PackFailed(pack, code)
    assert str(error).startswith("error[E904]: pack 1/2 failed") and error.exit_code == told


@pytest.mark.parametrize("debug", ["no", "yes"])
def test_a_workers_unexpected_error_is_one_line(monkeypatch, capsys, debug):
    monkeypatch.setenv(DEBUG, debug)
    monkeypatch.setenv("PTI_PLACES", "1")  # the worker sets both for itself
    monkeypatch.setenv("PTI_PLACE", "0")
    ours, theirs = Pipe()
    ours.send("{")  # no pack
    with pytest.raises(SystemExit) as caught:
        local._work(theirs, 0, 1)
    lines = capsys.readouterr().err.splitlines()
    assert caught.value.code == 1 and lines[-1].startswith("error[E999]: JSONDecodeError")
    assert (len(lines) == 1) == (debug == "no") and ("Traceback" in lines[0]) == (debug == "yes")
