"""Offsets that make up for how classes are drawn."""

import math

import pytest
import torch

from worker.learning.priors import logit_offsets


def test_a_class_that_fills_half_of_every_batch_is_held_back_by_as_much() -> None:
    new, remembered = torch.full((10,), 2), torch.tensor([0] * 45 + [1] * 45)
    offsets = logit_offsets(new, remembered, 0.5, 4)
    # Drawn ¼, ¼, ½; of all samples 0.45, 0.45, 0.1, evenly ⅓ each, and the mean of both.
    assert offsets[0].item() == pytest.approx(math.log(0.25 / ((0.45 + 1 / 3) / 2)), rel=1e-6)
    assert offsets[2].item() == pytest.approx(math.log(0.5 / ((0.1 + 1 / 3) / 2)), rel=1e-6)
    assert offsets[3].item() == 0.0  # nothing is known of it


def test_an_even_mix_needs_no_offset() -> None:
    offsets = logit_offsets(torch.arange(4), torch.arange(40) % 4, 0.5, 4)
    assert torch.allclose(offsets, torch.zeros(4), atol=1e-6)


def test_without_rehearsal_batches_are_as_the_samples_are() -> None:
    none = torch.empty(0, dtype=torch.int64)
    assert not logit_offsets(torch.tensor([0, 0, 1]), none, 1.0, 2).any()
    assert not logit_offsets(none, torch.tensor([0, 0, 1]), 0.0, 2).any()
