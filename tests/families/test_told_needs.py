"""What shapes tell that an update takes is what it takes, of families with several encoders."""

import pytest

from pti_pipeline.data import TEMPLATES
from pti_pipeline.families import load
from pti_pipeline.families.drafts import draft
from pti_pipeline.needs import step_of, weights_of
from pti_pipeline.settings import FinetuneSettings, InvertSettings


@pytest.mark.parametrize(
    ("family", "kind", "options"),
    [
        ("sdxl", InvertSettings, {}),
        ("sd3", FinetuneSettings, {}),
        *(
            pytest.param(family, kind, {"checkpointing": True}, marks=pytest.mark.slow)
            for family in ("sdxl", "sd3")
            for kind in (InvertSettings, FinetuneSettings)
        ),
    ],
)
def test_shapes_tell_what_a_real_update_takes(families, family, kind, options):
    """As ``tests/methods/test_needs.py`` has it of the other family, but for what T5 answered."""
    folder, settings = str(families[family]), kind(batch_size=3, **options)
    drawn, base = draft(folder), load(folder, "cpu")
    base.condition(base.tokenize(TEMPLATES, []))  # so that T5 has read the prompts
    told, taken = (step_of(each, settings, 2) for each in (drawn.base, base))
    assert (told.kept, told.held) == (taken.kept, taken.held)
    assert told.more == pytest.approx(taken.more, rel=0.15)
    held = [base.denoiser, *base.text_encoders, base.vae]
    t5 = getattr(base.pipeline, "text_encoder_3", None)
    tensors = (t for m in (*held, *([t5] if t5 else [])) for t in (*m.parameters(), *m.buffers()))
    assert sum(vars(weights_of(drawn)).values()) == sum(t.nbytes for t in tensors)
