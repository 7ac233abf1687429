"""What a regularizer adds to a tuning, each by what it is for."""

import gc
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from pti_pipeline import lora
from pti_pipeline.batches import prepare
from pti_pipeline.characters import Characters, class_word, encode
from pti_pipeline.cli.stages import finetune as command
from pti_pipeline.data import load_subject
from pti_pipeline.errors import ResourceError, UsageError
from pti_pipeline.holding import Ground, Prompts, beside, gather, hold
from pti_pipeline.pivot import Pivot, attached
from pti_pipeline.regularizers import REGULARIZERS, find, neighbours, regularize
from pti_pipeline.settings import TARGETS, FinetuneSettings
from pti_pipeline.tuning import finetune

STEPS = 6
WITH_ROWS = ("locality", "class-preservation", "prior-preservation")


@pytest.fixture
def pivot(base):
    start = base.initializer_row("cat")[None]
    return Pivot("<c>", "cat", start + 0.1 * torch.randn_like(start), start)


@pytest.fixture
def material(base, pictures):
    return prepare(base, load_subject(pictures, 16), ["<c>"])


def ground_of(base, material, pivot, **options):
    """Ground of one LoRA, whose rows remain when it is detached."""
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [0])
    settings = FinetuneSettings(**{"reg_bank": 6, "batch_size": 2, **options})
    return Ground(base, adapter, pivot, ("a photo of {}", "{}"), material, settings)


def run(base, material, pivot, experiments, steps=STEPS):
    """Train experiments; the moments, and the weights at the end."""
    seeds = [e.seed for e in experiments]
    adapter = lora.attach(base.denoiser, 4, 4.0, TARGETS, seeds)
    ground = Ground(base, adapter, pivot, ("a photo of {}", "{}"), material, experiments[0])
    term = find(experiments[0].regularizer)(ground)
    pivots = [pivot] * len(seeds)
    moments = list(finetune(base, adapter, material, pivots, experiments, [term] * len(seeds)))
    weights = [p.detach().clone() for p in adapter.parameters]
    lora.detach(adapter)
    return moments, weights


def settings(**options):
    usual = {"lr": 0.01, "steps": STEPS, "batch_size": 2, "reg_bank": 6}
    if options.get("regularizer") != "prior-preservation":
        usual["reg_latents"] = "training"  # samples take time
    return FinetuneSettings(**{**usual, **options})


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ["locality", "class-preservation"])
@pytest.mark.parametrize(("bank", "rounding"), [(0, 0.0), (6, 1e-14)])
@pytest.mark.parametrize("latents", ["base", "training"])
def test_an_adapter_at_zero_has_no_term_and_no_gradient(
    double_base, pictures, name, bank, rounding, latents
):
    """Exactly so where the base is asked in the same rows; a bank was asked in larger batches."""
    base = double_base
    material = prepare(base, load_subject(pictures, 16), ["<c>"])
    row = base.initializer_row("cat")[None]
    options = {"reg_bank": bank, "reg_latents": latents, "batch_size": 2}
    ground = ground_of(base, material, Pivot("<c>", "cat", row + 0.1, row), **options)
    for p in ground.adapter.parameters:
        p.requires_grad_(True)
    rows = REGULARIZERS[name](ground).rows(0, 0)
    answers = base.predict(rows.noisy, rows.timesteps, rows.states)
    term = (answers - rows.target).square().mean()
    ups = [layer.up for layer in ground.adapter.layers.values()]
    gradients = torch.autograd.grad(term, ups)
    assert float(term.detach()) <= rounding**2
    assert max(float(g.abs().max()) for g in gradients) <= rounding


@pytest.mark.parametrize("name", ["locality", "class-preservation"])
@pytest.mark.parametrize(("bank", "rounding"), [(0, 0.0), (6, 1e-5)])
def test_the_bases_answer_is_that_of_the_untouched_model(
    base, material, pivot, bank, rounding, name
):
    """To the bit where the base is asked in the same rows; a bank is asked in larger batches."""
    ground = ground_of(base, material, pivot, reg_bank=bank, reg_latents="training")
    for layer in ground.adapter.layers.values():
        layer.up += 0.5
    rows = REGULARIZERS[name](ground).rows(0, 3)
    tuned = base.predict(rows.noisy, rows.timesteps, rows.states)
    lora.detach(ground.adapter)
    alone = base.predict(rows.noisy, rows.timesteps, rows.states)
    torch.testing.assert_close(alone, rows.target, rtol=0, atol=rounding)
    assert not torch.allclose(tuned, rows.target, atol=0.01)


@pytest.mark.parametrize("name", ["locality", "class-preservation"])
def test_a_bank_is_the_same_to_the_bit_whatever_was_learned(base, material, pivot, name):
    banks = []
    for learned in (0.0, 0.5):
        ground = ground_of(base, material, pivot, reg_latents="training")
        for layer in ground.adapter.layers.values():
            layer.up += learned
        banks.append(REGULARIZERS[name](ground).rows(0, 3))
        lora.detach(ground.adapter)
    assert torch.equal(banks[0].target, banks[1].target)


@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize("kappa", [0.5, 8.0])
def test_the_ball_has_the_radius_asked_and_points_to_words(base, vectors, kappa):
    start = base.initializer_row("cat").expand(vectors, -1)
    pivot = Pivot("<c>", "cat", start + torch.randn(vectors, start.shape[1]), start)
    words = base.words().float()
    points = neighbours(pivot, words, kappa, 20)
    away = (points - pivot.embedding).flatten(1)
    radius = kappa * (pivot.embedding - start).norm()
    torch.testing.assert_close(away.norm(dim=1), radius.expand(20))
    if vectors == 1:
        directions = torch.nn.functional.normalize(words - pivot.embedding, dim=1)
        cosines = torch.nn.functional.normalize(away, dim=1) @ directions.T
        torch.testing.assert_close(cosines.amax(1), torch.ones(20))


def test_locality_asks_for_neighbours_in_the_tokens_place(base, material, pivot):
    ground = ground_of(base, material, pivot, kappa=0.7, reg_latents="training", reg_bank=8)
    rows = REGULARIZERS["locality"](ground).rows(0, 0)
    away = (rows.vectors - pivot.embedding).flatten(1).norm(dim=1)
    torch.testing.assert_close(away, 0.7 * (pivot.embedding - pivot.start).norm().expand(len(away)))
    with attached(base.text_encoders, rows.vectors):
        torch.testing.assert_close(base.condition(rows.ids), rows.states)
    lora.detach(ground.adapter)


@pytest.mark.parametrize("name", ["class-preservation", "prior-preservation"])
def test_classes_are_held_at_prompts_with_the_class_word(base, material, pivot, name):
    ground = ground_of(base, material, pivot, reg_bank=12)
    rows = REGULARIZERS[name](ground).rows(0, 0)
    known = encode(base, class_word("cat"), ground.prompts)[0]
    apart = torch.cdist(rows.states.flatten(1), known.flatten(1)).amin(1)
    assert float(apart.max()) == 0
    with_token = encode(base, Characters("<c>", pivot.embedding[None]), ground.prompts)[0]
    assert float(torch.cdist(rows.states.flatten(1), with_token.flatten(1)).min()) > 0.1
    lora.detach(ground.adapter)


def denoisers(base):
    """How many models of this kind there are in all the process."""
    return sum(type(each) is type(base.denoiser) for each in gc.get_objects())


def test_a_step_asks_the_model_once_and_its_weights_stand_once(base, material, pivot, monkeypatch):
    """Held rows share the pass; what they are held to was asked when the bank was made."""
    predict, asked = base.predict, []

    def counted(noisy, *others):
        asked.append(len(noisy))
        return predict(noisy, *others)

    monkeypatch.setattr(base, "predict", counted)
    before = denoisers(base)
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [0, 1])
    runs = [settings(regularizer="locality", seed=k, steps=3) for k in (0, 1)]
    terms = regularize(base, adapter, material, [pivot] * 2, ("a photo of {}",), runs[0])
    assert asked == [6]  # one bank of both experiments
    steps = [len(asked) for _ in finetune(base, adapter, material, [pivot] * 2, runs, terms)]
    there = denoisers(base)
    lora.detach(adapter)
    assert [b - a for a, b in pairwise(steps)] == [1, 1]  # before the first, memory is measured
    assert asked[-2:] == [8, 8]  # of each experiment two pictures and two held rows
    assert there == before


def test_words_are_whole_words_of_the_vocabulary(base):
    words, row = base.words(), base.initializer_row("cat")
    assert words.shape == (8, 16)  # all of conftest's but "a", "of" and "on"
    assert (words == row).all(1).any()


@pytest.mark.parametrize("name", WITH_ROWS)
def test_no_weight_is_no_regularizer_bit_for_bit(base, material, pivot, name):
    without, weights = run(base, material, pivot, [settings()])
    nothing, same = run(base, material, pivot, [settings(regularizer=name, reg_weight=0.0)])
    assert equal(weights, same)
    assert "train/regularizer" not in nothing[-1].metrics | without[-1].metrics


@pytest.mark.parametrize("name", WITH_ROWS)
def test_a_weight_changes_the_training_and_its_loss_is_apart(base, material, pivot, name):
    plain, weights = run(base, material, pivot, [settings()])
    held, others = run(base, material, pivot, [settings(regularizer=name)])
    assert not equal(weights, others)
    torch.testing.assert_close(plain[0].metrics["train/loss"], held[0].metrics["train/loss"])
    terms = torch.cat([m.metrics["train/regularizer"] for m in held])
    assert (terms[1:] > 0).all()
    assert (float(terms[0]) < 1e-9) == (name != "prior-preservation")


def test_more_weight_keeps_more_of_the_bases_answers(base, material, pivot):
    few = [settings(regularizer="locality", reg_weight=w, steps=40) for w in (1e-6, 100.0)]
    moments, _ = run(base, material, pivot, few)
    weak, strong = moments[-1].metrics["train/regularizer"].tolist()
    assert strong < weak / 2


@pytest.mark.parametrize("name", [n for n in REGULARIZERS if n != "none"])
def test_experiments_of_several_weights_share_a_pass(double_base, pictures, name):
    base = double_base
    material = prepare(base, load_subject(pictures, 16), ["<c>"])
    row = base.initializer_row("cat")[None]
    pivot = Pivot("<c>", "cat", row + 0.1, row)
    far = 0.05 if name == "weight-ball" else 0.0
    runs = [
        settings(lr=1e-3, seed=s, regularizer=name, reg_weight=w, steps=3, until_distance=w * far)
        for s, w in ((0, 0.5), (0, 5.0), (1, 0.1 if far else 0.0))
    ]
    _, packed = run(base, material, pivot, runs)
    for k, alone in enumerate(runs):
        _, weights = run(base, material, pivot, [alone])
        for many, one in zip(packed, weights, strict=True):
            torch.testing.assert_close(many[k], one[0], rtol=1e-6, atol=1e-8)


def test_every_k_steps_takes_the_term_then_alone_and_k_times_as_heavy(base, material, pivot):
    name = "prior-preservation"  # whose term is not zero at first
    every, rare, light = (
        run(base, material, pivot, [settings(regularizer=name, reg_every=k, reg_weight=w)])
        for k, w in ((1, 3.0), (3, 1.0), (1, 1.0))
    )
    values = torch.cat([m.metrics["train/regularizer"] for m in rare[0]]).tolist()
    assert values[0] == values[1] == values[2] != values[3] == values[4] == values[5]
    one, other = (moments[0].metrics["distance/delta_norm"] for moments, _ in (every, rare))
    assert torch.equal(one, other)  # their first steps are alike: 1 x 3 and 3 x 1
    assert not equal(every[1], rare[1])
    assert not torch.equal(one, light[0][0].metrics["distance/delta_norm"])


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("locality", {"kappa": 0.5}, {"kappa": 2.0}),
        ("locality", {"reg_latents": "base"}, {"reg_latents": "training"}),
        ("locality", {"reg_bank": 6}, {"reg_bank": 0}),
        ("locality", {"reg_bank": 6}, {"reg_bank": 12}),
        ("class-preservation", {"reg_latents": "base"}, {"reg_latents": "training"}),
        ("class-preservation", {"reg_bank": 6}, {"reg_bank": 0}),
    ],
)
def test_settings_change_what_is_held(base, material, pivot, name, one, other):
    rows = []
    for options in (one, other):
        ground = ground_of(base, material, pivot, **options)
        rows.append(REGULARIZERS[name](ground).rows(0, 0))
        lora.detach(ground.adapter)
    assert not torch.equal(rows[0].target, rows[1].target)


@pytest.mark.parametrize("name", WITH_ROWS)
def test_noisier_rows_may_weigh_more(base, material, pivot, name):
    for how, weights in (("even", lambda t: t * 0 + 1.0), ("noisy", lambda t: 2 * t / 1000)):
        ground = ground_of(base, material, pivot, reg_timesteps=how)
        rows = REGULARIZERS[name](ground).rows(0, 0)
        torch.testing.assert_close(rows.weights, weights(rows.timesteps))
        lora.detach(ground.adapter)
    even, noisy = (
        run(base, material, pivot, [settings(regularizer=name, reg_timesteps=how)])[1]
        for how in ("even", "noisy")
    )
    assert not equal(even, noisy)


def test_rows_are_noised_pictures_or_samples_of_the_base(base, material, pivot):
    still = replace(material, spread=torch.zeros_like(material.spread))
    ids, vectors = torch.zeros(3, 32, dtype=torch.int64), torch.zeros(3, 1, 16)
    prompts = Prompts(ids, vectors, torch.randn(3, 32, 16))
    kinds = {}
    for latents in ("training", "base"):
        ground = ground_of(base, still, pivot, reg_latents=latents, reg_bank=40, batch_size=8)
        rows = hold(ground, prompts, answers=False)(0, 0)
        kinds[latents] = base.clean(rows.noisy, rows.target, rows.timesteps)  # the noise is known
        lora.detach(ground.adapter)
    known = torch.cdist(kinds["training"].flatten(1), material.mean.flatten(1)).amin(1)
    assert float(known.max()) < 1e-3
    assert float(torch.cdist(kinds["base"].flatten(1), material.mean.flatten(1)).min()) > 1


def few_rows(monkeypatch, base, most):
    """Let memory hold so many rows of a pass; return the rows of those that did."""
    predict, passed = base.predict, []

    def small(noisy, *others):
        if len(noisy) > most:
            raise torch.OutOfMemoryError("out of memory")
        passed.append(len(noisy))
        return predict(noisy, *others)

    monkeypatch.setattr(base, "predict", small)
    return passed


def test_a_bank_that_does_not_fit_is_drawn_in_pieces(base, material, pivot, monkeypatch):
    def rows():
        ground = ground_of(base, material, pivot, reg_bank=20)
        drawn = REGULARIZERS["class-preservation"](ground).rows(0, 0)
        lora.detach(ground.adapter)
        return drawn

    whole, passed = rows(), few_rows(monkeypatch, base, 12)
    with pytest.warns(UserWarning, match="memory ran out: going on with micro-batches of") as told:
        pieces = rows()
    assert [str(each.message).split()[-1] for each in told] == ["24", "12", "6", "10"]
    assert set(passed) == {12, 10}  # samples with and without their prompt; then answers
    for name in ("noisy", "timesteps", "states", "target", "weights"):
        torch.testing.assert_close(
            getattr(pieces, name), getattr(whole, name), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("latents", ["base", "training"])
def test_a_bank_of_which_no_row_fits_is_told(base, material, pivot, monkeypatch, latents):
    few_rows(monkeypatch, base, 0)
    ground = ground_of(base, material, pivot, reg_latents=latents)
    with pytest.raises(ResourceError, match="E601"), pytest.warns(UserWarning, match="ran out"):
        REGULARIZERS["class-preservation"](ground)


def test_prior_preservation_learns_noise_on_samples_of_the_class(base, material, pivot):
    ground = ground_of(base, material, pivot)
    rows = REGULARIZERS["prior-preservation"](ground).rows(0, 0)
    base_answers = base.predict(rows.noisy, rows.timesteps, rows.states)
    assert not torch.allclose(base_answers, rows.target)
    with pytest.raises(UsageError, match="--reg-latents"):
        FinetuneSettings(regularizer="prior-preservation", reg_latents="training")


def test_noise_is_drawn_anew_at_each_step_and_answers_come_from_the_bank(base, material, pivot):
    ground = ground_of(base, material, pivot, batch_size=8, reg_bank=6)
    drawn = {
        name: torch.cat([REGULARIZERS[name](ground).rows(0, k).target for k in range(4)])
        for name in ("prior-preservation", "class-preservation")
    }
    lora.detach(ground.adapter)
    distinct = {name: len(rows.flatten(1).unique(dim=0)) for name, rows in drawn.items()}
    assert distinct == {"prior-preservation": 32, "class-preservation": 6}


def test_equal_seeds_see_equal_rows_and_rows_are_laid_out_by_experiment(base, material, pivot):
    ground = ground_of(base, material, pivot)
    draw = REGULARIZERS["locality"](ground).rows
    rows = gather([draw] * 3, [0, 1, 0], 5, slice(None))
    assert torch.equal(rows.noisy[:2], rows.noisy[4:])
    assert not torch.equal(rows.noisy[:2], rows.noisy[2:4])
    both = beside(rows, gather([draw] * 3, [7, 8, 9], 5, slice(None)), 3)
    assert torch.equal(both.timesteps.unflatten(0, (3, 4))[:, :2].flatten(), rows.timesteps)
    assert torch.equal(both.noisy[2:4], draw(7, 5).noisy)


def test_the_weight_ball_holds_the_lora_within_its_radius(base, material, pivot):
    moments, _ = run(base, material, pivot, [settings(steps=20)])
    radius = float(moments[9].metrics["distance/delta_norm"])
    options = {"regularizer": "weight-ball", "until_distance": radius, "steps": 20}
    held, _ = run(base, material, pivot, [settings(**options)])
    travelled = torch.cat([m.metrics["distance/delta_norm"] for m in held])
    assert float(travelled.max()) <= radius * (1 + 1e-6)
    assert all(bool(m.going.all()) for m in held)


def test_fewer_ranks_answer_where_it_is_noisier(base, material, pivot):
    adapter = lora.attach(base.denoiser, 4, 4.0, TARGETS, [0])
    for layer in adapter.layers.values():
        layer.up += 0.3
    lora.rank_by_timestep(adapter, 1000)
    noisy, times = torch.randn(3, 4, 8, 8), torch.tensor([0, 499, 999])
    states = torch.randn(3, 32, 16)
    masked = base.predict(noisy, times, states)
    ranks = [layer.mask.sum(1).tolist() for layer in adapter.layers.values()]
    assert all(r == [4, 3, 2] for r in ranks)
    lora.detach(adapter)
    for row, rank in enumerate((4, 3, 2)):
        fewer = lora.attach(base.denoiser, 4, 4.0, TARGETS, [0])
        for layer in fewer.layers.values():
            layer.up += 0.3
            layer.down[:, rank:] = 0
        alone = base.predict(noisy, times, states)
        torch.testing.assert_close(alone[row], masked[row])
        lora.detach(fewer)


def test_timestep_rank_is_kept_in_the_file_and_used_again(base, material, pivot, tmp_path):
    _, weights = run(base, material, pivot, [settings(regularizer="timestep-rank")])
    _, plain = run(base, material, pivot, [settings()])
    assert not equal(weights, plain)
    adapter = lora.attach(base.denoiser, 4, 4.0, TARGETS, [0])
    for layer in adapter.layers.values():
        layer.up += 0.3
    lora.rank_by_timestep(adapter, base.timesteps)
    rows = torch.randn(2, 4, 8, 8), torch.tensor([10, 900]), torch.randn(2, 32, 16)
    drawn, state = base.predict(*rows), lora.peft_state(adapter, 0)
    facts = {"r": 4, "lora_alpha": 4.0, "target_modules": list(TARGETS), "timestep_rank": 1000}
    lora.detach(adapter)
    base.save_lora(state, facts, tmp_path)
    read, config = base.load_lora(tmp_path / "pytorch_lora_weights.safetensors")
    assert config["timestep_rank"] == 1000
    again = lora.attach_states(base.denoiser, [read], config)
    assert torch.equal(base.predict(*rows), drawn)
    lora.detach(again)
    assert not base.denoiser._forward_pre_hooks


def test_an_unknown_regularizer_names_those_known():
    with pytest.raises(UsageError, match="class-preservation") as caught:
        find("locallity")
    assert caught.value.exit_code == 2


def test_what_a_regularizer_lacks_is_told(base, material, pivot):
    with pytest.raises(UsageError, match="--until-distance"):
        FinetuneSettings(regularizer="weight-ball")
    ground = ground_of(base, material, pivot)
    nameless = Pivot("<c>", "", pivot.embedding, pivot.start)
    with pytest.raises(UsageError, match="class word"):
        REGULARIZERS["class-preservation"](replace(ground, pivot=nameless))
    still = replace(pivot, embedding=pivot.start)
    with pytest.raises(UsageError, match="no radius"):
        REGULARIZERS["locality"](replace(ground, pivot=still))
    lora.detach(ground.adapter)


@pytest.mark.parametrize(
    "options", [{"reg_weight": -1.0}, {"kappa": 0.0}, {"reg_every": 0}, {"reg_latents": "x"}]
)
def test_settings_out_of_range_name_themselves(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        FinetuneSettings(**options)


def test_the_commands_help_names_every_regularizer():
    (text,) = [p.help for p in command.params if p.name == "regularizer"]
    assert all(name in text for name in REGULARIZERS)
