"""Token vectors at the norms of a vocabulary, part by part."""

import torch

from pti_pipeline.norms import median_norms, rescaled


def test_each_part_of_a_vector_gets_the_median_norm_of_that_part():
    g = torch.Generator().manual_seed(0)
    table, widths = torch.randn(101, 7, generator=g), [4, 3]
    table[:, 4:] *= 5
    norms = median_norms(table, widths)
    first = sorted(float(row.norm()) for row in table[:, :4].double())
    second = sorted(float(row.norm()) for row in table[:, 4:].double())
    torch.testing.assert_close(norms, torch.tensor([first[50], second[50]]).double())
    vectors = torch.randn(2, 3, 7, generator=g)
    found = rescaled(vectors, norms, widths)
    for part, norm in zip(found.split(widths, -1), norms, strict=True):
        torch.testing.assert_close(part.norm(dim=-1), norm.float().expand(2, 3))
    for now, before in zip(found.split(widths, -1), vectors.split(widths, -1), strict=True):
        cosine = torch.nn.functional.cosine_similarity(now, before, dim=-1)
        torch.testing.assert_close(cosine, torch.ones(2, 3))
