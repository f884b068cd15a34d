"""Random changes of pictures."""

import pytest
import torch

from worker.learning.augmentation import AugmentationSettings, augmented
from worker.learning.failure import LearningFailed


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 200) -> torch.Tensor:
    return torch.rand(count, 3, 6, 7, generator=generator(9))


def test_half_of_the_pictures_are_mirrored_and_the_others_stay() -> None:
    x = pictures()
    y = augmented(x, AugmentationSettings(flip=True), generator())
    mirrored = (y == x.flip(3)).flatten(1).all(1)
    assert bool(((y == x).flatten(1).all(1) ^ mirrored).all())
    assert 70 < int(mirrored.sum()) < 130


def test_a_crop_is_the_picture_moved_by_as_many_pixels_at_most_with_its_edge_repeated() -> None:
    x = pictures()
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
    y = augmented(x, AugmentationSettings(crop=2), generator())
    found = set()
    for one, moved in zip(padded, y, strict=True):
        places = [(i, j) for i in range(5) for j in range(5) if torch.equal(one[:, i : i + 6, j : j + 7], moved)]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) == 25


def test_the_same_generator_gives_the_same_pictures_and_the_originals_stay() -> None:
    x = pictures()
    before = x.clone()
    settings = AugmentationSettings(crop=3, flip=True)
    assert torch.equal(augmented(x, settings, generator()), augmented(x, settings, generator()))
    assert not torch.equal(augmented(x, settings, generator()), augmented(x, settings, generator(1)))
    assert torch.equal(x, before)
    assert augmented(x, AugmentationSettings(), generator()) is x


def test_features_are_refused() -> None:
    with pytest.raises(LearningFailed, match="leave `augmentation` out"):
        augmented(torch.zeros(4, 5), AugmentationSettings(flip=True), generator())
