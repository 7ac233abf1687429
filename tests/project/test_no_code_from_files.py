"""Nothing in the package can run code that a file or a parameter brings along."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from source import found_in

PACKAGE = Path(__file__).parents[2] / "pti_pipeline"
ALLOWED = {
    "steps/world_training/corpus.py": ["numpy.savez"],  # of numbers; read with allow_pickle=False
}


def test_the_package_does_not():
    paths = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    found = {name: told(path.read_text("utf-8")) for name, path in paths.items()}
    assert len(found) > 150
    assert {name: what for name, what in found.items() if what} == ALLOWED


def told(text):
    return [line.partition(": ")[2] for line in found_in(text)]


@pytest.mark.parametrize(
    ("planted", "danger"),
    [
        ("import pickle", "pickle"),
        ("import numpy, _pickle as p", "_pickle"),
        ("from pickle import loads", "pickle"),
        ("def f():\n import cloudpickle", "cloudpickle"),
        ("import joblib.numpy_pickle", "joblib.numpy_pickle"),
        ("import dill", "dill"),
        ("import marshal", "marshal"),
        ("from shelve import open", "shelve"),
        ("import torch\ntorch.load(p)", "torch.load"),
        ("import torch as t\nt.save(x, p)", "torch.save"),
        ("import torch\nread = torch.load", "torch.load"),
        ("from torch import load", "torch.load"),
        ("eval(text)", "eval"),
        ("exec(text)", "exec"),
        ("run = eval", "eval"),
        ("import builtins\nbuiltins.eval(text)", "eval"),
        ("__import__(name)", "__import__"),
        ("import os\nos.system(text)", "os.system"),
        ("import os as o\no.popen(text)", "os.popen"),
        ("from os import system as f", "os.system"),
        ("import subprocess\nsubprocess.run(text, shell=True)", "shell=True"),
        ("import subprocess\nsubprocess.Popen(text, shell=asked)", "shell=asked"),
        ("import yaml\nyaml.load(f)", "yaml.load"),
        ("import yaml\nyaml.unsafe_load(f)", "yaml.unsafe_load"),
        ("import numpy as np\nnp.load(p, allow_pickle=True)", "allow_pickle=True"),
        ("import numpy as np\nnp.load(p, allow_pickle=asked)", "allow_pickle=asked"),
        ("import numpy as np\nnp.save(p, x)", "numpy.save without allow_pickle=False"),
        ("import numpy as np\nnp.savez(p, x)", "numpy.savez"),
        ("M.from_pretrained(p)", "M.from_pretrained without use_safetensors=True"),
        ("M.from_pretrained(p, use_safetensors=False)", "use_safetensors=False"),
        ("AutoConfig.from_pretrained(p, trust_remote_code=True)", "trust_remote_code=True"),
        (
            "from transformers import AutoTokenizer as A\nA.from_pretrained(p)",
            "AutoTokenizer.from_pretrained without trust_remote_code=False",
        ),
        ("x.load(p, weights_only=False)", "weights_only=False"),
        ("import tempfile\ntempfile.mktemp()", "tempfile.mktemp"),
    ],
)
def test_what_is_planted_is_found(planted, danger):
    assert danger in told(planted)


def test_what_only_looks_like_it_is_not():
    """To list what a pickle says, as ``pickletools`` does, is to do none of it."""
    harmless = (
        "import json, re, pickletools\nimport numpy as np\nfrom pathlib import Path\n"
        "json.load(f); model.eval(); re.compile(x); np.load(p, allow_pickle=False)\n"
        "np.save(p, x, allow_pickle=False)\npickletools.dis(x)\n"
        "subprocess.run(words, shell=False)\nsave(x); load(x); base.load(x)\n"
        "CLIPTokenizer.from_pretrained(p)\nM.from_pretrained(p, use_safetensors=True)\n"
    )
    assert found_in(harmless) == []


def test_no_environment_lets_a_pickle_run():
    """As the user's shell says it, and as a command then has it."""
    code = (
        "import os, pti_pipeline.cli, pti_pipeline.tracking.store\n"
        "from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION as allowed\n"
        "print(os.environ.get('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'), allowed.get())"
    )
    unsafe = {
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true",
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=os.environ | unsafe, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["None", "False"]
