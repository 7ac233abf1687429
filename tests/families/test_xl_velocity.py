"""XL whose scheduler says that it predicts velocities: taught and drawn so."""

import json
import shutil

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline

from pti_pipeline.characters import class_word, draw
from pti_pipeline.families import load
from pti_pipeline.sampling import to_uint8
from pti_pipeline.settings import SampleSettings


def test_xl_of_velocities(families, tmp_path):
    folder = shutil.copytree(families["sdxl"], tmp_path / "model")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
    base, noisy = load(str(folder), "cpu"), load(str(families["sdxl"]), "cpu")
    assert base.fingerprint != noisy.fingerprint, "the same weights mean another model"

    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([1, 700])
    theirs = DDIMScheduler.from_config(base.scheduler.config)
    target = base.target(latents, noise, times)
    torch.testing.assert_close(target, theirs.get_velocity(latents, noise, times))
    assert torch.equal(noisy.target(latents, noise, times), noise)

    who, how = class_word(""), SampleSettings(4, 4.0)
    ours, others = (
        to_uint8(draw(each, who, ["a photo of cat"], [3], how))[0, 0].astype(int)
        for each in (base, noisy)
    )
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    start = torch.Generator().manual_seed(3)
    drawn = pipe("a photo of cat", num_inference_steps=4, guidance_scale=4.0, generator=start)
    assert np.abs(np.asarray(drawn.images[0]).astype(int) - ours).max() <= 1
    assert np.abs(ours - others).max() > 20
