import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from pti_pipeline.families import load
from pti_pipeline.sampling import sample, to_uint8


@pytest.mark.parametrize("kind", ["tiny_folder", "tiny_epsilon_folder"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_pictures_are_those_of_diffusers(request, kind, guidance):
    folder = request.getfixturevalue(kind)
    base = load(str(folder), "cpu")
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    prompts, seeds = ["a photo of cat", "dog on the beach"], [3, 11]
    states = base.condition(base.tokenize([*prompts, ""], []))
    ours = to_uint8(sample(base, states[None, :2], states[2], seeds, 6, guidance))[0]
    for prompt, seed, picture in zip(prompts, seeds, ours, strict=True):
        theirs = pipe(
            prompt,
            num_inference_steps=6,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
        assert np.abs(np.asarray(theirs).astype(int) - picture).max() <= 1


@pytest.mark.parametrize("kind", ["tiny_folder", "tiny_epsilon_folder"])
def test_targets_and_clean_latents_are_the_schedulers(request, kind):
    base = load(str(request.getfixturevalue(kind)), "cpu")
    scheduler = DDPMScheduler.from_config(base.scheduler.config)
    g = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(3, 4, 8, 8, generator=g) for _ in range(2))
    times = torch.tensor([10, 400, 900])
    velocity = scheduler.config.prediction_type == "v_prediction"
    expected = scheduler.get_velocity(latents, noise, times) if velocity else noise
    found = base.target(latents, noise, times)
    torch.testing.assert_close(found, expected)
    noisy = base.add_noise(latents, noise, times)
    torch.testing.assert_close(noisy, scheduler.add_noise(latents, noise, times))
    torch.testing.assert_close(base.clean(noisy, found, times), latents, rtol=1e-3, atol=1e-3)
