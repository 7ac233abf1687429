"""Models of a folder's configurations, without its weights."""

import torch

from pti_pipeline.families.drafts import draft
from pti_pipeline.needs import weights_of

CPU = torch.device("cpu")


def test_a_draft_on_a_device_answers_in_the_models_shapes(folder, base):
    """With weights drawn there, and the words of a tokenizer that it is given."""
    drawn = draft(str(folder), device=CPU, tokenizer=base.tokenizer)
    assert weights_of(drawn) == weights_of(draft(str(folder)))
    latents, times = base.start_latents([0, 1]), torch.tensor([200, 800])
    with torch.no_grad():
        told, random = (
            b.predict(latents, times, b.condition(b.tokenize(["a rabbit"] * 2, [])))
            for b in (base, drawn.base)
        )
    assert random.shape == told.shape and random.isfinite().all()
    assert not torch.equal(random, told) and drawn.base.fingerprint != base.fingerprint
    length = base.tokenizer.model_max_length  # of CLIP's; T5's follow
    words = (b.tokenize(["a rabbit", "rabbit"], [])[:, :length] for b in (base, drawn.base))
    assert torch.equal(*words)
