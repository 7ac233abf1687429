"""The benchmarks' own arithmetic, the peers' stand-ins, and the table in the docs."""

import json
import statistics
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from benchmarks import __main__ as command
from benchmarks import cards, demo, gpu, modes, ours, results, stand_in, toy
from benchmarks.figure import packs_figure
from benchmarks.gpu_table import gpu_table
from benchmarks.peer_process import Script, running
from benchmarks.timing import Row, interleaved, ratio
from pti_pipeline.batches import prepare
from pti_pipeline.budget import CONTEXT, GIB, Needs, peak
from pti_pipeline.data import load_subject
from pti_pipeline.families import load
from pti_pipeline.families.drafts import draft
from pti_pipeline.known_misses import KnownMiss
from pti_pipeline.low_rank import PackedLoRA
from pti_pipeline.needs import asides_of, step_of, weights_of

ROOT = Path(__file__).parents[2]
ROW = Row("r", 2.0, 1.5, 3.0, 0.1, 5)
PLACE = {"group": "packs", "machine": "m", "commit": "c", "date": "2026-11-25"}

TRAINER = """
import sys, torch
from torchvision import transforms
weight = torch.zeros(1, requires_grad=True)
optimizer = torch.optim.SGD([weight], lr=1.0)
assert sys.argv[1] == "--rate=1"
for step in range({steps}):
    sum(range(200_000))
    optimizer.step()
raise SystemExit("tired")
"""


def result(**changes):
    return results.Result(**{**vars(ROW), **PLACE, **changes})


def miss(value):
    return KnownMiss("r", value, "too cold", "2026-11-25")


def tiny():
    shapes = toy.toy()
    vae, unet = (
        {**part, "sample_size": side} for part, side in ((shapes.vae, 64), (shapes.unet, 8))
    )
    return replace(shapes, vae=vae, unet=unet)


def test_the_docs_show_the_measured_table():
    page = (ROOT / "docs/explanation/sweeps.md").read_text("utf-8")
    assert results.table(results.read(), results.read_known(), results.ON_CPU) in page
    assert gpu_table(results.read()) in page


def test_a_table_of_packs_has_each_row():
    kept = results.read()
    table = gpu_table(kept)
    rows = [row for row in kept if row.group in gpu.GROUPS]
    assert table.count("**") == 2 * len(rows)
    assert "| stable-diffusion-xl, finetune | 4 | **3.97**; 594.5 ms, 28.4 GiB, 13 % |" in table
    assert "GPU, " in results.table(kept, {}) and "GPU, " not in results.table(kept, {}, ["packs"])


def test_cases_run_in_turns():
    order = []
    cases = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = interleaved(cases, runs=3, warm=1)
    assert order == list("abababab")
    assert {name: len(s) for name, s in seconds.items()} == {"a": 3, "b": 3}


def test_ratios_are_medians_of_pairs():
    assert ratio([2, 4, 60, 8, 10], [1, 2, 3, 4, 5]) == pytest.approx((2.0, 4.5))
    assert ratio([3.0], [2.0]) == (1.5, 0.0)


def test_gates_hold_ratios_from_below_and_shares_from_above():
    assert ROW.reached
    assert not replace(ROW, ratio=1.4).reached
    assert Row("r", 0.01, 0.02, 0.01, 0.1, 5, share=True).reached
    assert not Row("r", 0.03, 0.02, 0.01, 0.1, 5, share=True).reached


@pytest.mark.parametrize(
    ("row", "known", "said"),
    [
        (ROW, {}, "reached"),
        (replace(ROW, ratio=1.4), {}, "MISSED"),
        (replace(ROW, ratio=1.4), {"r": miss(1.45)}, "missed (known)"),
        (replace(ROW, ratio=1.2), {"r": miss(1.45)}, "MISSED"),
        (replace(ROW, ratio=0.03, goal=0.02, share=True), {"r": miss(0.03)}, "missed (known)"),
        (replace(ROW, ratio=0.04, goal=0.02, share=True), {"r": miss(0.03)}, "MISSED"),
        (replace(ROW, goal=None, aim=None), {}, "-"),
    ],
)
def test_a_missed_gate_is_known_or_not(row, known, said):
    assert results.verdict(row, known) == said


def test_a_known_miss_tells_its_reason():
    said = results.line(replace(ROW, ratio=1.4), {"r": miss(1.4)})
    assert "missed (known), 1.4 on 2026-11-25: too cold" in said


@pytest.mark.parametrize(
    ("ratio", "known", "code"), [(2.0, [], 0), (1.4, [], 1), (1.4, [{"name": "r"}], 0)]
)
def test_the_command_fails_on_an_unknown_miss(tmp_path, monkeypatch, ratio, known, code):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(results, "KNOWN", tmp_path / "known.json")
    results.write([result(name="stays", group="peers"), result(ratio=9.9)])
    listed = [{"value": 0, "reason": "", "date": "", **entry} for entry in known]
    results.KNOWN.write_text(json.dumps(listed), "utf-8")
    monkeypatch.setattr(command.packs_rows, "rows", lambda runs: [replace(ROW, ratio=ratio)])
    said = CliRunner().invoke(command.main, ["--only=packs"])
    assert said.exit_code == code
    assert [r.name for r in results.read()] == ["r", "stays"]
    assert "| stays | 2 | 1.5 | 3 | reached | 2026-11-25 |" in said.output
    assert "not measured: `make bench SINCE=<commit>`" in said.output


def test_a_peer_takes_its_steps_when_told_to(tmp_path):
    path = tmp_path / "trainer.py"
    path.write_text(TRAINER.format(steps=6))
    with running(Script(path, {"rate": 1}), "cpu") as peer:
        first, second = peer.steps(2), peer.steps(3)
        assert [len(first), len(second)] == [2, 3]
        assert 0 < statistics.median(second) < 1
        with pytest.raises(RuntimeError, match="tired"):
            peer.steps(3)


def test_stand_ins_change_pictures_as_torchvision_does():
    picture = Image.linear_gradient("L").convert("RGB").resize((8, 4))
    steps = [
        stand_in.resize(8, stand_in.InterpolationMode.BILINEAR),
        stand_in.center_crop(8),
        stand_in.to_tensor(),
        stand_in.normalize([0.5], [0.5]),
    ]
    tensor = stand_in.compose(steps)(picture)
    assert tensor.shape == (3, 8, 8)
    assert -1 < tensor[:, 0].max() < -0.5 < 0.5 < tensor[:, -1].min() < 1
    assert torch.equal(stand_in.random_horizontal_flip(1.0)(tensor), tensor.flip(-1))
    flipped = stand_in.random_horizontal_flip(1.0)(picture)
    assert torch.equal(stand_in.to_tensor()(flipped), stand_in.to_tensor()(picture).flip(-1))
    assert stand_in.random_crop(4)(picture).size == (4, 4)


def test_the_toy_is_stable_diffusion_in_small(tmp_path):
    base = load(str(toy.build(toy.toy(), tmp_path / "toy")), "cpu")
    sizes = [sum(p.numel() for p in part.parameters()) for part in (base.denoiser, base.vae)]
    assert sizes == pytest.approx([1.49e6, 0.25e6], rel=0.02)
    assert base.vocabulary().shape == (1024, 64)
    assert len(base.tokenizer) == 1024
    assert base.resolution == 256


@pytest.mark.parametrize(
    "mode",
    [
        nullcontext,
        partial(modes.replayed, make=lambda call, sample: call),
        pytest.param(partial(modes.compiled, backend="eager"), marks=pytest.mark.slow),
    ],
    ids=("eager", "replayed", "compiled"),
)
def test_the_gpu_rows_run_at_small_shapes(tmp_path, monkeypatch, mode):
    monkeypatch.setattr(gpu, "WARM", 0)
    build = partial(gpu.random_base, toy.build(tiny(), tmp_path / "model"), "cpu", 1024)
    invert, tune = gpu.packs("tiny", build, "cpu", 1, (2,), {"mode": mode}, gpu.ceiling("cpu", 64))
    assert invert.name == "GPU, tiny: 2 single invert steps, eager / one pack of 2, mode"
    assert invert.goal is None
    for row in (invert, tune):
        assert row.ratio > 0
        assert row.note.endswith("TFLOP/s")


def losses(folder, pictures, stage, device, mode):
    """Of three steps in a mode, and the model."""
    torch.manual_seed(0)
    base = gpu.random_base(folder, device, 1024)
    material = prepare(base, load_subject(pictures, base.resolution), [ours.TOKEN])
    steps = ours.STAGES[stage](base, material, [1e-2] * 2, 1)
    next(steps)
    with mode(base.denoiser):
        return torch.stack([next(steps).metrics["train/loss"] for _ in range(3)]), base


@pytest.mark.parametrize("stage", ours.STAGES)
def test_a_replayed_denoiser_is_captured_with_all_that_is_trained(tmp_path, stage):
    """Graphs know no tensors but those they are given: the call's, and the LoRA's."""
    captured, answered = [], []

    def make(call, sample):
        captured.append((sample, list(call.parameters())))

        def answer(*tensors):
            answered.append(tensors)
            return call(*tensors)

        return answer

    folder, pictures = toy.build(tiny(), tmp_path / "model"), toy.paint(tmp_path / "pictures", 256)
    replayed, base = losses(folder, pictures, stage, "cpu", partial(modes.replayed, make=make))
    plain, _ = losses(folder, pictures, stage, "cpu", nullcontext)
    assert torch.equal(plain, replayed)
    assert "forward" not in vars(base.denoiser)
    ((sample, parameters),) = captured
    layers = [m for m in base.denoiser.modules() if isinstance(m, PackedLoRA)]
    trained = [id(tensor) for layer in layers for tensor in (layer.down, layer.up)]
    assert [id(tensor) for tensor in parameters] == trained
    assert bool(trained) == (stage == "finetune")
    assert all(tensor.requires_grad and tensor.is_leaf for tensor in parameters)
    assert len(answered) == 3
    for tensors in answered:
        for given, expected in zip(tensors, sample, strict=True):
            assert given is not expected
            assert (given.shape, given.dtype) == (expected.shape, expected.dtype)
            assert given.requires_grad == expected.requires_grad
    assert sum(tensor.requires_grad for tensor in sample) == (stage == "invert")


def test_a_denoiser_is_as_it_was_after_a_mode_that_failed(tmp_path):
    folder = toy.build(tiny(), tmp_path / "model")
    model = gpu.random_base(folder, "cpu", 1024).denoiser
    model.forward = own = partial(model.forward)
    for mode in (modes.replayed, partial(modes.compiled, backend="eager")):
        with pytest.raises(ValueError, match="stop"), mode(model):
            raise ValueError("stop")
        assert model.forward is own
        assert not any(module._compiled_call_impl for module in model.modules())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("stage", ours.STAGES)
def test_a_replayed_denoiser_learns_the_same_on_a_gpu(tmp_path, stage):
    folder, pictures = toy.build(tiny(), tmp_path / "model"), toy.paint(tmp_path / "pictures", 256)
    plain, _ = losses(folder, pictures, stage, "cuda", nullcontext)
    replayed, _ = losses(folder, pictures, stage, "cuda", modes.replayed)
    assert torch.allclose(plain, replayed, rtol=1e-2)


def test_the_figure_has_every_pack_of_both_models():
    kept = results.read()
    drawn = packs_figure(kept)
    told = {row.ratio for row in kept if row.group in gpu.GROUPS and "compiled" not in row.name}
    shown = [bars.lines[0].get_ydata() for axes in drawn.axes for bars in axes.containers]
    assert len(shown) == 8
    assert {float(value) for values in shown for value in values} == told
    assert packs_figure([row for row in kept if row.group != "gpu-xl"]) is None


@pytest.mark.parametrize("stage", cards.STAGES)
def test_the_cards_rows_run_at_small_shapes(tmp_path, monkeypatch, stage):
    """On a CPU the tensors are counted: what is estimated, but for what kernels differ in."""
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    folder, card = toy.build(tiny(), tmp_path / "model"), cards.Card("tiny", 6)
    settings = cards.STAGES[stage](batch_size=128)  # the step is the fullest moment
    row = cards.row(card, stage, settings, folder, torch.device("cpu"))
    assert (
        row.name == f"GPU memory, tiny {stage} --precision=bf16 --micro-batch=1: measured / 6 GiB"
    )
    assert row.share
    drawn = draft(str(folder), "bf16")
    needs = weights_of(drawn), asides_of(drawn), step_of(drawn.base, settings)
    most = row.ratio * 6 * GIB - CONTEXT
    assert most == pytest.approx(peak(Needs(*needs, stage == "invert", False)) - CONTEXT, rel=0.1)
    real = draft(str(folder), "bf16", device=torch.device("cpu"))
    settings = cards.STAGES[stage](batch_size=16)
    less = cards.taken(real, settings, 6 * GIB)[0] - CONTEXT
    assert less < 0.6 * most
    monkeypatch.delenv("PYTORCH_ALLOC_CONF")
    row = cards.row(card, stage, settings, folder, torch.device("cpu"))
    assert row.name.endswith("--micro-batch=1, plain segments: measured / 6 GiB")


def test_the_cards_are_rows_of_the_page():
    """With what was measured."""
    page = (ROOT / "docs/reference/memory.md").read_text("utf-8").splitlines()
    notes = {row.name: row.note for row in results.read() if row.group == "cards"}
    for card in cards.CARDS:
        start = f"| `{card.model}` | {card.memory} | `{card.options}` |"
        each = []
        for plain in (True, False):
            told = [notes.get(cards.name_of(card, stage, plain)) for stage in cards.STAGES]
            each.append(", ".join(note.split()[0] for note in told if note) or "-")
        assert f"{start} {each[0]} | {each[1]} |" in page


def test_the_demo_runs_from_an_earlier_tree_and_from_this_one(monkeypatch):
    trees = []

    def seconds(tree, settings):
        assert (tree / "MLproject").is_file()
        trees.append(tree)
        return 2.0 if tree == ROOT else 3.0

    monkeypatch.setattr(demo, "_seconds", seconds)
    (row,) = demo.rows("HEAD", 2)
    assert row.ratio == 1.5
    assert trees[1::2] == [ROOT, ROOT]
    assert ROOT not in trees[::2]


def test_the_demo_is_the_makefiles_but_for_what_the_earlier_commit_can_not_do():
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", "")
    words = makefile.split("DEMO := ")[1].splitlines()[0].split()
    given = dict(word.replace("_", "-").split("=") for word in words if word != "-P")
    assert {"steps", "samples", "edit-seeds", "sample-every"} <= given.keys()
    for name, value in given.items():
        left_out = name in ("probes", "reg-every")
        assert left_out or (demo.SETTINGS | demo.SINCE)[name] == value
    assert demo.SINCE == {"seeds": "0", "probes": "0", "regularizer": "none"}
