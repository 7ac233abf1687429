"""Overpowering: how much of a prompt's attention the character's name takes from other words."""

from __future__ import annotations

import torch
from torch import Tensor

from pti_pipeline.characters import Characters, content_positions, encode, name_positions, tokenized
from pti_pipeline.data import Subject
from pti_pipeline.families.base import BaseModel
from pti_pipeline.randomness import generator

PROMPTS = (
    "{} on the beach",
    "{} in the snow",
    "{} with a red hat",
    "a photo of {} in the city",
)
"""Prompts with other words of content, that an overpowering name would drown."""
PICTURES = 2
"""Training pictures that the bank noises: the first ones."""
TIMES = (0.3, 0.6, 0.9)
"""Timesteps of the bank, in shares of the base's."""


def shares(base: BaseModel, who: Characters, subject: Subject) -> list[float]:
    r"""Share of the cross-attention on words that the name takes; one number a character.

    Returns
    -------
    list of float
        0 to 1; near the class word's is better: above it, the name drowns the other words.

    Notes
    -----
    .. math:: \omega = \sum_{px} A_{name} \Big/ \sum_{px} \sum_{words} A

    at each head of each layer, and the mean over heads, layers, prompts and a fixed bank of
    noised training pictures. Words are all tokens but the begin, the end and the padding; a name
    of several vectors counts with all of them. The maps are those of DAAM (Tang et al. 2022).
    """
    ids = tokenized(base, who, PROMPTS)
    own, words = name_positions(base, who, ids), content_positions(base, ids)
    latents, _ = base.encode_images(subject.images[:PICTURES])
    states = encode(base, who, PROMPTS)
    found = [_at(base, states, latents, index, own, words) for index in range(len(TIMES))]
    return [float(value) for value in torch.stack(found).mean(0)]


@torch.no_grad()
def _at(
    base: BaseModel, states: Tensor, latents: Tensor, index: int, own: Tensor, words: Tensor
) -> Tensor:
    """Shares (K,) at one timestep; rows are experiment, then prompt, then picture."""
    experiments, prompts, n = len(states), len(own), len(latents)
    time = torch.full((n,), int(TIMES[index] * base.timesteps), device=base.device)
    noise = torch.randn(latents.shape, generator=generator(0, "attention", index)).to(base.device)
    noisy = base.add_noise(latents, noise, time).repeat(experiments * prompts, 1, 1, 1)
    with base.attention(lambda probabilities: probabilities.sum(2)) as layers:
        rows = states.flatten(0, 1).repeat_interleave(n, 0)
        base.predict(noisy, time.repeat(experiments * prompts), rows)
    values = []
    for mass in layers:  # (K P N, heads, L)
        by_prompt = mass.unflatten(0, (experiments, prompts, n))
        name, all_words = (
            (by_prompt * where[None, :, None, None]).sum(-1) for where in (own, words)
        )
        values.append((name / all_words).flatten(1).mean(1))
    return torch.stack(values).mean(0)
