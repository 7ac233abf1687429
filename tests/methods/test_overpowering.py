"""Attention is watched, not changed; its shares are those of cases that can be counted."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor

from pti_pipeline import lora
from pti_pipeline.characters import Characters, class_word, encode, name_positions, tokenized
from pti_pipeline.data import load_subject
from pti_pipeline.overpowering import PROMPTS, shares
from pti_pipeline.settings import TARGETS


@pytest.fixture
def subject(pictures):
    return load_subject(pictures, 16)


def characters(base, n, experiments=1):
    rows = [base.vocabulary()[5 : 5 + n].clone() * (1 + k) for k in range(experiments)]
    return Characters("<c>", torch.stack(rows))


def answer(base, states):
    noisy = torch.randn(len(states), 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return base.predict(noisy, torch.full((len(states),), 500), states)


def with_lora(base):
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [0])
    for layer in adapter.layers.values():
        layer.up.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
    return adapter


@pytest.mark.parametrize("n", [1, 3])
def test_where_attention_is_even_the_share_is_a_count_of_tokens(base, subject, n):
    for name, module in base.denoiser.named_modules():
        if name.endswith("attn2.to_k"):
            module.weight.zero_()
    lengths = [len(base.tokenizer(p.replace("{}", "")).input_ids) - 2 for p in PROMPTS]
    expected = sum(n / (n + length) for length in lengths) / len(lengths)
    assert shares(base, characters(base, n), subject) == [pytest.approx(expected, rel=1e-5)]


def test_a_class_word_counts_with_all_its_tokens_wherever_they_stand(base):
    who = class_word("cat dog")
    ids = tokenized(base, who, ["a cat of {}", "{} on a dog"])
    found = name_positions(base, who, ids)
    assert found.nonzero().tolist() == [[0, 4], [0, 5], [1, 1], [1, 2]]
    assert not name_positions(base, class_word(""), ids).any()


@pytest.mark.parametrize("tuned", [False, True])
def test_probabilities_are_those_that_diffusers_computes(base, monkeypatch, tuned):
    if tuned:
        with_lora(base)
    states = encode(base, class_word("cat"), ["{} on the beach"])[0]
    with base.attention(lambda probabilities: probabilities) as seen:
        answer(base, states)
    kept, scores = [], Attention.get_attention_scores

    def keep(self, *words):
        kept.append(scores(self, *words))
        return kept[-1]

    monkeypatch.setattr(Attention, "get_attention_scores", keep)
    base.denoiser.set_attn_processor(AttnProcessor())
    answer(base, states)
    crossed = [k for k in kept if k.shape[-1] == states.shape[1]]
    assert len(seen) == len(crossed) > 1
    for ours, theirs in zip(seen, crossed, strict=True):
        torch.testing.assert_close(ours[0], theirs)
        torch.testing.assert_close(ours.sum(-1), torch.ones_like(ours[..., 0]))


def test_the_answer_and_the_processors_are_the_very_same(base):
    with_lora(base)
    states = encode(base, class_word("cat"), ["{} on the beach"] * 2)[0]
    before, processors = answer(base, states), base.denoiser.attn_processors
    with pytest.raises(KeyboardInterrupt), base.attention(lambda p: p.sum(2)):
        within = answer(base, states)
        raise KeyboardInterrupt
    after = base.denoiser.attn_processors
    assert all(after[name] is processor for name, processor in processors.items())
    assert torch.equal(before, within) and torch.equal(before, answer(base, states))


def test_characters_in_one_pass_are_those_alone(base, subject):
    together = characters(base, 2, experiments=3)
    alone = [shares(base, Characters("<c>", v[None]), subject)[0] for v in together.vectors]
    assert shares(base, together, subject) == pytest.approx(alone, rel=1e-5)
    assert len(set(alone)) == 3


def test_a_lora_on_the_keys_moves_the_share(base, subject):
    who = characters(base, 1)
    before = shares(base, who, subject)
    adapter = with_lora(base)
    assert shares(base, who, subject) != pytest.approx(before, rel=1e-4)
    lora.detach(adapter)
    assert shares(base, who, subject) == before
