"""Numbers in eight bits, against the map as published and the nearest code by search."""

import math

import pytest
import torch
from bitsandbytes.functional import create_dynamic_map

from pti_pipeline.blockwise import BLOCK, dequantize, dynamic_map, quantize


def test_the_maps_are_the_published_ones():
    """Values of ``create_dynamic_map`` in bitsandbytes, which torchao 0.18 has too."""
    signed, unsigned = dynamic_map(True), dynamic_map(False)
    for map_, sign in ((signed, True), (unsigned, False)):
        torch.testing.assert_close(map_, create_dynamic_map(sign), rtol=1e-6, atol=0)
    assert len(signed) == len(unsigned) == len(signed.unique()) == len(unsigned.unique()) == 256
    some = [-0.992968738, -0.978906274, -0.96484375]
    torch.testing.assert_close(signed[:3], torch.tensor(some), rtol=1e-7, atol=0)
    some = [-5.50000038e-07, 0, 5.50000038e-07, 3.25000019e-06, 7.7499999e-06, 2.12499981e-05]
    torch.testing.assert_close(signed[126:132], torch.tensor(some), rtol=1e-6, atol=0)
    some = [0, 3.2500003e-07, 7.7499999e-07]
    torch.testing.assert_close(unsigned[:3], torch.tensor(some), rtol=1e-6, atol=0)
    assert float(signed[-1]) == float(unsigned[-1]) == 1
    assert float(unsigned.double().sum()) == pytest.approx(75.1052632, rel=1e-6)


@pytest.mark.parametrize("signed", [True, False])
def test_each_number_gets_the_nearest_code_of_its_block(signed):
    g = torch.Generator().manual_seed(0)
    numbers = torch.randn(2, 600, generator=g) * torch.logspace(-8, 2, 600)
    numbers = numbers if signed else numbers.abs()
    codes, scales = quantize(numbers, signed)
    assert codes.shape == (2, 3, BLOCK) and codes.dtype == torch.uint8
    found, values = dequantize(codes, scales, signed, 600), dynamic_map(signed)
    for k in range(2):
        for first in range(0, 600, BLOCK):
            block = numbers[k, first : first + BLOCK]
            largest = block.abs().max()
            index = (block[:, None] / largest - values).abs().argmin(1)
            nearest = values[index if signed else index.clamp(min=1)] * largest
            torch.testing.assert_close(found[k, first : first + BLOCK], nearest)
    assert signed or (found > 0).all()  # so that nothing is divided by the root of 0


def test_nothing_stays_nothing_and_rows_do_not_mix():
    numbers = torch.zeros(3, 300)
    numbers[2] = math.nan
    numbers[1, 299] = 7.0
    found = dequantize(*quantize(numbers, True), True, 300)
    assert torch.equal(found[:2], numbers[:2]) and found[2].isnan().all()
