"""Characters measured side by side are those measured in turn."""

import os
import resource
import threading
import time
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch

from pti_pipeline import lora, sharing
from pti_pipeline import meter as m
from pti_pipeline.characters import Characters, class_word
from pti_pipeline.comparison import compare
from pti_pipeline.errors import ResourceError
from pti_pipeline.settings import TARGETS, BaseSettings, SampleSettings

IMAGES = Path(__file__).parents[2] / "examples" / "mochi"
METER = m.Meter(
    BaseSettings("world", "cpu"), IMAGES, "rabbit", samples=2, edit_seeds=1, how=SampleSettings(2)
)


@pytest.fixture(scope="module")
def cases():
    """The class word, and three characters with LoRAs that change the picture."""
    base = m.equipment(METER).base
    vectors = torch.stack([base.initializer_row(word)[None] for word in ("cat", "bear", "ghost")])
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [0, 1, 2])
    for layer in adapter.layers.values():
        layer.up.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    states = tuple(lora.peft_state(adapter, k) for k in range(3))
    lora.detach(adapter)
    config = {"r": 2, "lora_alpha": 2.0, "target_modules": list(TARGETS)}
    return [m.Case(class_word("rabbit")), m.Case(Characters("<x>", vectors), states, config)]


def same(one, other):
    assert one.bank == pytest.approx(other.bank, rel=1e-4)
    assert all(torch.equal(one.plain[name], other.plain[name]) for name in ("species", "scene"))
    torch.testing.assert_close(one.edits["x"], other.edits["x"], rtol=0, atol=1e-3)
    assert np.abs(one.grid.astype(int) - other.grid).mean() < 0.5


def test_side_by_side_equals_in_turn_equals_one_pass(cases, monkeypatch):
    together = [row for case in cases for row in m.measure(METER, case)]
    monkeypatch.setattr(sharing.machine, "cores", lambda: 2)
    beside = list(sharing.measure_all(METER, cases))
    monkeypatch.setattr(sharing.machine, "cores", lambda: 1)
    in_turn = list(sharing.measure_all(METER, cases))
    assert len(together) == len(beside) == len(in_turn) == 4
    for rows in zip(together, beside, in_turn, strict=True):
        same(rows[0], rows[1])
        same(rows[0], rows[2])
    assert np.abs(together[1].grid.astype(int) - together[2].grid).mean() > 1


def test_many_loras_need_few_open_files_and_stopping_ends_the_workers(cases, monkeypatch):
    monkeypatch.setattr(sharing.machine, "cores", lambda: 2)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = len(os.listdir("/proc/self/fd")) + 60  # three LoRAs have 336 tensors
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        measuring = sharing.measure_all(METER, cases)
        assert len([next(measuring) for _ in range(3)]) == 3
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert active_children()
    measuring.close()
    assert not active_children()


def test_a_worker_that_dies_is_told(cases, monkeypatch):
    monkeypatch.setattr(sharing.machine, "cores", lambda: 2)

    def kill():
        while not active_children():
            time.sleep(0.05)
        active_children()[0].kill()

    threading.Thread(target=kill).start()
    with pytest.raises(ResourceError, match="E601"):
        list(sharing.measure_all(METER, cases))


def test_the_base_is_left_as_it_was(cases):
    base = m.equipment(METER).base
    before = m.measure(METER, cases[0])[0]
    with m.tuned(base, cases[1]):
        pass
    after = m.measure(METER, cases[0])[0]
    assert (before.grid == after.grid).all() and before.bank == after.bank


def test_one_process_where_memory_or_a_gpu_says_so(cases, monkeypatch):
    base = m.equipment(METER).base
    monkeypatch.setattr(sharing.machine, "cores", lambda: 8)
    weights = sum(p.nbytes for x in (base.denoiser, base.text_encoders[0]) for p in x.parameters())
    monkeypatch.setattr(
        sharing.machine,
        "free_bytes",
        lambda _: 3 * (sharing.LIBRARIES + sharing.WEIGHTS_A_WORKER * weights),
    )
    assert sharing._places(base) == 3
    monkeypatch.setattr(sharing.machine, "free_bytes", lambda _: 0)
    assert sharing._places(base) == 1
    monkeypatch.setattr(base, "device", torch.device("cuda"))
    assert sharing._places(base) == 1


def test_metrics_are_against_the_nearest_reference(cases):
    word, first, second, _ = (row for case in cases for row in m.measure(METER, case))
    row, _ = compare(METER, first, {"class": word, "pivot": second})
    assert {"leak/class_auc", "leak/pivot_auc", "reconstruction/bank_gain"} <= set(row)
    assert row["reconstruction/bank_gain"] == pytest.approx(
        1 - first.bank["reconstruction/bank_loss"] / word.bank["reconstruction/bank_loss"]
    )
    assert 0 < row["overpowering/share"] < 1
    assert row["overpowering/relative"] == pytest.approx(
        first.bank["overpowering/share"] / word.bank["overpowering/share"]
    )
    itself, _ = compare(METER, first, {"class": first})
    assert itself["overpowering/relative"] == 1
    assert itself["editability/relative"] == 1 and itself["leak/class_auc"] == 0.5
