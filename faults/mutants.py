"""Small faults put into the modules that keep and check things, each of which a test must notice.

mutmut makes them and runs the tests that reach them; ``setup.cfg`` says which modules, and which
tests. What it has done is in ``mutants/``, so that it goes on where it was stopped.
"""

from __future__ import annotations

import json
import subprocess
import sys

from faults.results import ROOT

STATS = ROOT / "mutants" / "mutmut-cicd-stats.json"
NOTICED = ("killed", "timeout", "segfault")
"""What mutmut calls mutants that made a test fail, or hang."""


def measure(long: bool) -> dict[str, float]:
    """Run mutmut; there is no short form."""
    for words in (["run"], ["export-cicd-stats"]):
        subprocess.run([sys.executable, "-m", "mutmut", *words], cwd=ROOT, check=True)
    counts = json.loads(STATS.read_text("utf-8"))
    noticed = sum(counts.get(name, 0) for name in NOTICED)
    return {
        "mutants": counts["total"],
        "noticed": noticed,
        "mutation_score": round(noticed / counts["total"], 4),
    }
