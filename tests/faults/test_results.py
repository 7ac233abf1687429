"""What the measurement writes, prints and ends with; its parts have tests of their own."""

import json
import subprocess
from importlib import import_module

import pytest
from click.testing import CliRunner

from faults import growth, results
from faults.goals import GOALS, Goal

faults = import_module("faults.__main__")  # the package's command

GOOD = {"steps": 10_000, "memory_growth_mb": 1.25, "open_files": 0, "threads": 0}
BAD = {**GOOD, "memory_growth_mb": 6.0, "open_files": 1}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "faults.json")
    monkeypatch.setattr(results, "commit", lambda: "abcdef1")
    return tmp_path / "faults.json"


@pytest.fixture
def started(monkeypatch):
    """Parts for which a process was started, which is this one."""
    parts = []

    def run(words, **_):
        parts.append(words[-1] if words[-1] != "--long" else words[-2])
        done = CliRunner().invoke(faults.main, words[words.index("faults") + 1 :])
        told = f"what was wrong {done.exception}"
        return subprocess.CompletedProcess(words, done.exit_code, "", told)

    monkeypatch.setattr(faults.subprocess, "run", run)
    return parts


def measuring(monkeypatch, numbers):
    monkeypatch.setattr(growth, "measure", lambda long: numbers)


@pytest.mark.parametrize(("words", "form"), [([], "short"), (["--long"], "long")])
def test_a_part_is_written_with_where_and_when(path, started, monkeypatch, words, form):
    measuring(monkeypatch, GOOD)
    path.write_text(json.dumps({"kills": {"short": {"numbers": {}}}}))
    done = CliRunner().invoke(faults.main, ["--part=growth", *words])
    assert done.exit_code == 0 and "MISSED" not in done.output and not done.stderr
    written = json.loads(path.read_text())
    assert written["kills"] == {"short": {"numbers": {}}}
    row = written["growth"][form]
    assert row["numbers"] == GOOD and row["commit"] == "abcdef1"
    assert "cores" in row["machine"] and row["date"] and row["seconds"] == 0
    assert row["cpu_seconds"] >= 1  # torch and all were imported before
    assert row["command"] == ("make faults-long" if words else "make faults")


def test_a_missed_goal_is_shown_and_ends_with_1(path, started, monkeypatch):
    measuring(monkeypatch, BAD)
    done = CliRunner().invoke(faults.main, ["--part=growth"])
    assert done.exit_code == 1 and "what was wrong" in done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert [name for name, line in lines.items() if line.endswith("MISSED")] == [
        "memory_growth_mb",
        "open_files",
    ]
    assert lines["memory_growth_mb"].split()[1:4] == ["6", "<=", "5"]
    assert done.stderr.splitlines()[-2:] == [  # at the very end, after all parts
        "missed: growth memory_growth_mb 6, goal <= 5",
        "missed: growth open_files 1, goal <= 0",
    ]


def test_a_part_that_fails_is_told_with_why(path, started, monkeypatch):
    monkeypatch.setattr(growth, "measure", lambda long: 1 // 0)
    done = CliRunner().invoke(faults.main, ["--part=growth"])
    assert done.exit_code == 1 and "growth could not be measured" in done.output
    assert "division" in done.output and not path.exists()


@pytest.mark.parametrize(
    ("then", "now", "again"),
    [
        ("abcdef1", "abcdef1", False),
        ("abcdef1", "abcdef2", True),
        ("abcdef1+", "abcdef1+", True),
        ("unknown", "unknown", True),
    ],
)
def test_a_long_part_is_kept_at_the_very_same_commit_alone(
    path, started, monkeypatch, then, now, again
):
    measuring(monkeypatch, GOOD)
    monkeypatch.setattr(results, "commit", lambda: then)
    results.write("growth", "long", BAD, 1, 1)
    monkeypatch.setattr(results, "commit", lambda: now)
    assert faults.measured("growth", "long")["numbers"] == (GOOD if again else BAD)
    assert started == ["--one=growth"] * again


def test_the_commit_is_told_apart_from_changes_but_for_results(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "ROOT", tmp_path)
    assert results.commit() == "unknown"
    person = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
    kept = tmp_path / "docs" / "results" / "faults.json"
    kept.parent.mkdir(parents=True)
    for file in (kept, tmp_path / "code.py"):
        file.write_text("1")
    for words in (["init", "-q"], ["add", "."], [*person, "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    clean = results.commit()
    assert len(clean) == 7 and results.certain(clean)
    kept.write_text("2")
    assert results.commit() == clean
    (tmp_path / "code.py").write_text("2")
    assert results.commit() == f"{clean}+"


def test_goals_bound_from_one_side():
    assert [Goal(1, 2).met(n, long=False) for n in (0, 1, 2)] == [True, True, False]
    assert [Goal(1, 2, least=True).met(n, long=True) for n in (1, 2, 3)] == [False, True, True]
    assert not Goal(0, 0).met(float("nan"), long=False)
    for part, goals in GOALS.items():
        assert callable(import_module(f"faults.{part}").measure) and goals
