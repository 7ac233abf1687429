"""What is installed is what was locked: every file by its hash."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
LINE = re.compile(
    r"([a-z0-9-]+)==([0-9a-z.]+)(?: ; .+?)? \\\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)+)"
)
CUDA = re.compile(r"torch|triton|(cuda|nvidia)-.*")


def pinned():
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text("utf-8"))
    return dict(pin.split("==") for pin in conda["dependencies"][-1]["pip"])


def locked():
    return [match[:2] for match in LINE.findall(LOCK)]


def test_every_line_is_a_version_with_hashes():
    rest = LINE.sub("", LOCK)
    assert all(re.match(r"#|    #", line) for line in rest.splitlines()), rest
    assert len(locked()) > 100


def test_it_holds_what_conda_yaml_pins_at_the_same_versions():
    known, wanted = dict(locked()), pinned()
    torch = wanted.pop("torch")
    assert {name: known.get(name) for name in wanted} == wanted
    assert f"pip install torch=={torch}\n" in LOCK


def test_torch_and_its_cuda_are_left_to_its_own_builds():
    assert [name for name, _ in locked() if CUDA.fullmatch(name)] == []


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("uv"), reason="no uv: pip install uv")
def test_it_can_be_made_anew(tmp_path):
    """From the internet: what it then holds is newer, but covers the same."""
    for name in ("scripts", "conda.yaml"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    subprocess.run([tmp_path / "scripts" / "lock.sh"], check=True)
    made = (tmp_path / "requirements.lock").read_text("utf-8")
    assert {name for name, _, _ in LINE.findall(made)} >= pinned().keys() - {"torch"}


def test_what_an_audit_passes_over_is_reviewed():
    lines = (ROOT / "scripts" / "audit-ignored.txt").read_text("utf-8").splitlines()
    for line in lines:
        if not line.startswith("#"):
            assert re.fullmatch(r"(GHSA|PYSEC|CVE)-\S+ \d{4}-\d\d-\d\d \S.{10,}", line)
