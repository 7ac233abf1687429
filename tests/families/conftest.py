"""A tiny model of every family."""

import pytest
import torch
from tiny_families import BUILDERS, build_families

from pti_pipeline.data import load_subject
from pti_pipeline.families import load


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    return build_families(tmp_path_factory.mktemp("families"))


@pytest.fixture(params=BUILDERS)
def folder(request, families):
    return families[request.param]


@pytest.fixture
def base(folder):
    return load(str(folder), "cpu")


@pytest.fixture
def double(base):
    """A base in float64, where packed and separate training agree to rounding."""
    base.dtype = torch.float64
    for part in (*base.text_encoders, base.vae, base.denoiser):
        part.double()
    if t5 := getattr(base.pipeline, "text_encoder_3", None):
        t5.double()
    return base


@pytest.fixture
def subject(base, pictures):
    return load_subject(pictures, base.resolution)
