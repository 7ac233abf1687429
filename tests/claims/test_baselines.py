"""Token and LoRA trained together, as others do it."""

from itertools import pairwise

import torch

from pti_pipeline import lora
from pti_pipeline.batches import prepare
from pti_pipeline.data import load_subject
from pti_pipeline.settings import TARGETS, FinetuneSettings
from pti_pipeline.studies.claims import baselines
from pti_pipeline.studies.claims.baselines import joint

STEPS = 6


def test_the_token_moves_at_its_own_rate_and_is_frozen_halfway(base, pictures):
    material = prepare(base, load_subject(pictures, 16), ["<c>"])
    settings = FinetuneSettings(lr=1e-4, steps=STEPS, batch_size=2)
    vectors = base.initializer_row("cat")[None, None].clone()
    adapter = lora.attach(base.denoiser, 2, 2.0, TARGETS, [0])
    table = base.vocabulary().clone()
    tokens, loras = [vectors.clone()], [adapter.parameters[1].detach().clone()]
    for _ in joint(base, adapter, material, vectors, settings):
        tokens.append(vectors.clone())
        loras.append(adapter.parameters[1].detach().clone())
    lora.detach(adapter)
    moved = [float((b - a).abs().max()) for a, b in pairwise(tokens)]
    assert abs(moved[0] / baselines.TOKEN_LR - 1) < 1e-2
    assert all(m > 0 for m in moved[:3]) and moved[3:] == [0.0] * 3
    assert all(not torch.equal(a, b) for a, b in pairwise(loras))
    first = (loras[1] - loras[0]).abs()
    assert abs(float(first.max()) / settings.lr - 1) < 1e-2
    assert torch.equal(base.vocabulary(), table)
