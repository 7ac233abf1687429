"""What a training is told to need, against what it takes; and the shapes of public models."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as F

from pti_pipeline import budget, needs
from pti_pipeline.cli import main
from pti_pipeline.families import load
from pti_pipeline.families.drafts import draft
from pti_pipeline.live import Efficient, held_bytes, most_bytes
from pti_pipeline.needs import asides_of, step_of, weights_of
from pti_pipeline.settings import FinetuneSettings, InvertSettings

SHAPES = Path(__file__).parents[2] / "benchmarks" / "shapes"
MILLIONS = {
    "stable-diffusion-1.5": {"denoiser": 859.5, "encoders": 123.1, "t5": 0, "vae": 83.7},
    "stable-diffusion-xl": {"denoiser": 2567.5, "encoders": 817.7, "t5": 0, "vae": 83.7},
    "stable-diffusion-3-medium": {
        "denoiser": 2028.3 + 56.6,  # a table of positions
        "encoders": 818.3,
        "t5": 4762.3,
        "vae": 83.8,
    },
}
"""Parameters, as the models' authors tell them."""


@pytest.fixture(scope="module", params=["tiny", "world"])
def name(request, tiny_folder):
    return {"tiny": str(tiny_folder), "world": "world"}[request.param]


@pytest.mark.parametrize("kind", [InvertSettings, FinetuneSettings])
@pytest.mark.parametrize(
    "options",
    [{}, {"checkpointing": True}, {"micro_batch": 1, "optimizer": "adam-8bit"}],
    ids=["plain", "checkpointing", "micro-batch"],
)
def test_shapes_tell_what_a_real_update_takes(tiny_folder, kind, options):
    _compare(str(tiny_folder), kind, options)


@pytest.mark.parametrize("kind", [InvertSettings, FinetuneSettings])
def test_and_of_the_embedded_world(kind):
    _compare("world", kind, {"checkpointing": True})


@pytest.mark.parametrize("less", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_and_of_all_that_a_lora_may_adapt(tiny_folder, less):
    adapting = {"targets": "attention+feed-forward", "text_encoder": "yes", "dora": "yes"}
    _compare(str(tiny_folder), FinetuneSettings, {"checkpointing": less, **adapting})


@pytest.mark.slow
def test_and_of_several_vectors(tiny_folder):
    _compare(str(tiny_folder), InvertSettings, {"vectors": 3, "optimizer": "prodigy"})


def _compare(name, kind, options):
    settings = kind(batch_size=3, **options)
    told, taken = (step_of(base, settings, 2) for base in (draft(name).base, load(name, "cpu")))
    assert (told.kept, told.held) == (taken.kept, taken.held)
    assert told.more == pytest.approx(taken.more, rel=0.15)


def test_shapes_tell_what_weights_and_samples_take(name):
    drawn, base = draft(name), load(name, "cpu")
    parts = {"denoiser": [base.denoiser], "encoders": base.text_encoders, "vae": [base.vae]}
    for part, models in parts.items():
        tensors = (t for m in models for t in (*m.parameters(), *m.buffers()))
        assert getattr(weights_of(drawn), part) == sum(t.nbytes for t in tensors)
    real = asides_of(type(drawn)(base, base.vae, None))
    for part, told in vars(asides_of(drawn)).items():
        assert told == pytest.approx(getattr(real, part), rel=0.15)


@pytest.mark.parametrize("name", MILLIONS)
def test_shapes_of_public_models_have_their_parameters(name):
    weights = weights_of(draft(str(SHAPES / name), "bf16"))
    for part, millions in MILLIONS[name].items():
        assert getattr(weights, part) / 2e6 == pytest.approx(millions, rel=1e-3)


def test_attention_keeps_no_scores():
    """As on a GPU; taken apart it would keep a number for each pair of tokens."""
    query = torch.zeros(1, 2, 512, 8, device="meta", requires_grad=True)

    def attend():
        return F.scaled_dot_product_attention(query, query, query)

    apart = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: apart.setdefault(id(t), t), lambda t: t
    ):
        attend()
    scores = 2 * 512 * 512 * 4
    assert max(t.nbytes for t in apart.values()) == scores
    assert held_bytes(attend, query.device) == query.nbytes + 2 * 512 * 4
    real = torch.zeros(query.shape, requires_grad=True)
    held = held_bytes(lambda: F.scaled_dot_product_attention(real, real, real), real.device)
    assert held == query.nbytes + 2 * 512 * 4
    with Efficient():
        assert attend().shape == query.shape


def test_most_is_what_was_there_at_once():
    def work():
        for _ in range(3):
            one = torch.zeros(1000)
            (one + 1).add_(1).view(10, 100)

    assert most_bytes(work, torch.device("cpu")) == 2 * 4000
    assert most_bytes(lambda: None, torch.device("cpu")) == 0


MEASURED = """
import torch
from pti_pipeline.families import load
from pti_pipeline.needs import step_of
from pti_pipeline.settings import {kind}
base = load("world", "cpu")
step_of(base, {kind}(batch_size=1))
def most():
    told = dict(line.split(":") for line in open("/proc/self/status") if ":" in line)
    return int(told["VmHWM"].split()[0]) * 1024
before = most()
step_of(base, {kind}(batch_size=256))
print(most() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of a process")
@pytest.mark.parametrize(
    "kind", [pytest.param(InvertSettings, marks=pytest.mark.slow), FinetuneSettings]
)
def test_a_process_takes_what_was_told(kind):
    """Within a quarter: kernels take some inside. What is freed is given back at once."""
    told = step_of(draft("world").base, kind(batch_size=256))
    code = MEASURED.format(kind=kind.__name__)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"},
    )
    assert int(done.stdout) == pytest.approx(told.kept + told.held + told.more, rel=0.25)


def test_offloading_and_packs():
    drawn = draft("world")
    weights, asides = weights_of(drawn), asides_of(drawn)
    step = step_of(drawn.base, FinetuneSettings())
    whole, away = (budget.Needs(weights, asides, step, False, o) for o in (False, True))
    here, there = budget.moments(whole)[budget.STEP], budget.moments(away)[budget.STEP]
    assert here - there == weights.encoders + weights.vae
    enough = budget.peak(whole, 8)
    assert budget.largest_pack(whole, enough) >= 1
    assert budget.largest_pack(whole, 2 * enough) > budget.largest_pack(whole, enough)
    assert budget.largest_pack(away, enough) >= budget.largest_pack(whole, enough)
    assert budget.largest_pack(whole, budget.peak(whole) - 1) == 0
    assert budget.peak(whole, budget.largest_pack(whole, enough)) <= enough


def test_the_command_prints_a_table_and_reads_no_weights(tmp_path):
    done = CliRunner().invoke(main, ["memory", "--budget=1", "--pack=2"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("GiB")
    assert "experiments in 1.0 GiB" in done.output
    file = tmp_path / "model.safetensors"
    file.touch()
    done = CliRunner().invoke(main, ["memory", f"--base={file}"])
    assert done.exit_code == 2 and "E209" in done.output


def test_the_command_estimates_what_its_options_ask_for(monkeypatch):
    asked, told = [], []
    monkeypatch.setattr(needs, "step_of", lambda base, settings: asked.append(settings))
    monkeypatch.setattr(needs, "asides_of", lambda drawn: None)
    monkeypatch.setattr(budget, "table", lambda stages, *_: told.append(stages))
    adapting = ["--text-encoder=yes", "--targets=to_q,ff.net.2", "--dora=yes", "--rslora=yes"]
    done = CliRunner().invoke(
        main, ["memory", *adapting, "--optimizer=adam-8bit", "--vectors=8", "--rank=2"]
    )
    assert done.exit_code == 0, done.output
    (invert, finetune), (stages,) = asked, told
    assert invert == InvertSettings(optimizer="adam-8bit", vectors=8)
    own = {"text_encoder": "yes", "targets": "to_q,ff.net.2", "dora": "yes", "rslora": "yes"}
    assert finetune == FinetuneSettings(optimizer="adam-8bit", rank=2, **own)
    assert stages["invert"].reads and stages["finetune"].reads
    done = CliRunner().invoke(main, ["memory", "--targets=nothing"])
    assert done.exit_code == 2 and "E207" in done.output


def test_what_a_lora_adapts_is_counted(least_folder):
    base = draft(str(least_folder)).base
    changes = {"targets": "attention+feed-forward"}, {"text_encoder": "yes"}, {"dora": "yes"}
    usual, *others = (step_of(base, FinetuneSettings(batch_size=1, **c)) for c in ({}, *changes))
    for other in others:
        assert other.kept > usual.kept and other.held > usual.held
