import math

import pytest
import torch

from app.errors import InvalidItem
from app.networks.features import FeaturesPreprocessor, features_content
from app.recipe import FeaturesInput


def code(content: bytes, size: int = 3) -> str:
    with pytest.raises(InvalidItem) as caught:
        FeaturesPreprocessor(FeaturesInput(size=size)).check(content)
    return caught.value.code


def test_numbers_come_back_on_their_own_scale() -> None:
    preprocessor = FeaturesPreprocessor(FeaturesInput(size=3))
    content = features_content([1, -2.5, 1e9])

    preprocessor.check(content)
    item = preprocessor.decode(content)

    assert item.dtype == torch.float32
    assert item.tolist() == [1.0, -2.5, 1e9]
    assert preprocessor.batch([item, item]).shape == (2, 3)
    assert preprocessor.batch([]).shape == (0, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    assert code(features_content([0.0, bad, 1.0])) == "not_finite"


def test_what_float32_cannot_hold_is_refused() -> None:
    assert code(features_content([0.0, 1e300, 1.0])) == "out_of_range"


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 4])
def test_a_wrong_length_says_what_was_expected_and_what_came(values: list[float]) -> None:
    with pytest.raises(InvalidItem, match=rf"Expected 3 numbers, got {len(values)}\."):
        FeaturesPreprocessor(FeaturesInput(size=3)).check(features_content(values))


def test_bytes_that_are_no_whole_numbers_are_of_wrong_size() -> None:
    assert code(b"\0" * 25) == "wrong_size"


@pytest.mark.parametrize("values", [["a"], [[1.0], [2.0]], [[1.0, 2.0]], [None, {}], [10**400]])
def test_lists_of_other_things_are_refused(values: list[object]) -> None:
    with pytest.raises(InvalidItem) as caught:
        features_content(values)  # type: ignore[arg-type]
    assert caught.value.code == "not_numbers"


def test_a_batch_of_one_is_a_copy_that_a_network_may_change() -> None:
    preprocessor = FeaturesPreprocessor(FeaturesInput(size=3))
    item = torch.tensor([-1.0, 2.0, -3.0])
    preprocessor.batch([item]).relu_()
    assert item.tolist() == [-1.0, 2.0, -3.0]


def test_many_are_decoded_as_one_by_one() -> None:
    preprocessor = FeaturesPreprocessor(FeaturesInput(size=3))
    contents = [features_content([row, row / 3, -1e9 * row]) for row in range(5)]

    many = preprocessor.decode_many(contents)

    assert all(torch.equal(item, preprocessor.decode(one)) for item, one in zip(many, contents, strict=True))  # type: ignore[arg-type]
    assert preprocessor.stacked(many).shape == (5, 3)  # type: ignore[arg-type]
    assert preprocessor.decode_many([]) == []


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (features_content([0.0, math.nan, 1.0]), "not_finite"),
        (features_content([0.0, 1e300, 1.0]), "out_of_range"),
        (features_content([0.0] * 4), "wrong_size"),
        (b"", "wrong_size"),
    ],
)
def test_one_bad_vector_of_many_fails_alone(bad: bytes, code: str) -> None:
    good = features_content([1.0, 2.0, 3.0])

    before, wrong, after = FeaturesPreprocessor(FeaturesInput(size=3)).decode_many([good, bad, good])

    assert isinstance(wrong, InvalidItem)
    assert wrong.code == code
    assert isinstance(before, torch.Tensor)
    assert isinstance(after, torch.Tensor)
    assert before.tolist() == after.tolist() == [1.0, 2.0, 3.0]


def test_lengths_that_add_up_are_still_wrong_one_by_one() -> None:
    short, long = features_content([1.0, 2.0]), features_content([1.0, 2.0, 3.0, 4.0])
    many = FeaturesPreprocessor(FeaturesInput(size=3)).decode_many([short, long])
    assert [isinstance(one, InvalidItem) for one in many] == [True, True]
