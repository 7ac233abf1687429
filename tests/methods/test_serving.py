import io
import math
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from registered import write_files

from pti_pipeline.bundle import load_bundles, seal
from pti_pipeline.errors import ModelError, PtiError, ResourceError, UsageError
from pti_pipeline.families import load
from pti_pipeline.serving import LIMITS, answer, deadline, read_request, serve

USUAL = {"seed": 0, "steps": 3, "guidance": 2.0, "count": 1}


@pytest.fixture(scope="module")
def loaded(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    base = load(str(tiny_folder), "cpu")
    write_files(base, folder, "<mei>")
    facts = {"base": str(tiny_folder), "base_fingerprint": base.fingerprint}
    seal(folder, {**facts, "token": "<mei>", "run": "r"})
    base, (bundle,) = load_bundles([folder])
    return base, bundle


@pytest.fixture
def served(loaded):
    return serve(*loaded)


@pytest.mark.parametrize(
    "asked",
    [
        {"steps": 101},
        {"count": 5},
        {"count": 3, "prompts": ["a", "b"]},
        {"count": 0},
        {"prompts": []},
        {"prompts": ["a" * 1001]},
        {"guidance": 30.5},
        {"guidance": math.nan},
        {"guidance": math.inf},
        {"guidance": 0.5},
        {"steps": 0},
        {"side": 1032},
    ],
)
def test_what_is_over_a_cap_is_refused(asked):
    prompts, side = asked.pop("prompts", ["a cat"]), asked.pop("side", 512)
    with pytest.raises(UsageError, match=r"E255|E202"):
        read_request(prompts, {**USUAL, **asked}, side, LIMITS)


def test_what_is_at_the_caps_is_drawn():
    most = {"seed": 7, "count": LIMITS.pictures, "steps": LIMITS.steps, "guidance": LIMITS.guidance}
    texts, seeds, how = read_request(["a" * LIMITS.prompt], most, LIMITS.side, LIMITS)
    assert len(texts) == 4 and seeds == [7, 8, 9, 10]
    assert (how.steps, how.guidance) == (100, 30.0)


def test_each_prompt_gets_count_pictures(served):
    asked = {**USUAL, "count": 2, "seed": 5}
    drawn = answer(served, ["a photo of {}", "a photo of <mei> on the beach"], asked)
    assert [seed for seed, _ in drawn] == [5, 6, 5, 6]
    pictures = [np.asarray(Image.open(io.BytesIO(png))) for _, png in drawn]
    assert {p.shape for p in pictures} == {(16, 16, 3)}
    assert not np.array_equal(pictures[0], pictures[1])


def test_the_deadline_is_looked_at_before_every_denoising_step(loaded):
    base, bundle = loaded
    calls = []
    counting = base.denoiser.register_forward_pre_hook(
        lambda *_: calls.append(1) or time.sleep(0.1)
    )
    served = serve(base, bundle, replace(LIMITS, seconds=0.35))
    try:
        with pytest.raises(ResourceError, match="E603"):
            answer(served, ["{}"], {**USUAL, "steps": 100})
    finally:
        counting.remove()
    assert 1 <= len(calls) <= 6  # of 100
    assert not base.denoiser._forward_pre_hooks
    assert answer(serve(base, bundle), ["{}"], USUAL)


def test_a_deadline_to_come_changes_nothing(loaded):
    base, bundle = loaded
    plain = answer(serve(base, bundle), ["{}"], USUAL)
    with deadline(base, time.monotonic() + 100):
        assert answer(serve(base, bundle), ["{}"], USUAL) == plain


def test_requests_take_turns_and_too_many_are_sent_away(loaded):
    base, bundle = loaded
    alone = answer(serve(base, bundle), ["{}"], USUAL)
    served = serve(base, bundle, replace(LIMITS, waiting=3))
    answers, errors = [], []

    def ask():
        try:
            answers.append(answer(served, ["{}"], USUAL))
        except PtiError as error:
            errors.append(error.code)

    with served.turn:  # someone is being drawn
        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        while len(errors) < 2:
            time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert errors == ["E604", "E604"] and answers == [alone] * 3


def test_who_waits_too_long_for_a_turn_is_told(loaded):
    served = serve(*loaded, replace(LIMITS, seconds=0.05))
    with served.turn, pytest.raises(ResourceError, match="E603"):
        answer(served, ["{}"], USUAL)
    assert answer(serve(*loaded), ["{}"], USUAL)


def test_a_picture_that_is_none_is_an_error(loaded):
    base, bundle = loaded
    state = {name: value * 1e30 for name, value in bundle.lora.state.items()}
    huge = replace(bundle, lora=replace(bundle.lora, state=state))
    with pytest.raises(ModelError, match="E427"):
        answer(serve(base, huge), ["{}"], USUAL)
