"""A device is taken by the name that a setting gives, and what is none is told with the setting."""

import pytest
import torch

from app.device import choose_device
from app.errors import InvalidSetting


def test_the_device_is_taken_by_its_name() -> None:
    assert choose_device("cpu", "PERENNIAL_DEVICE") == torch.device("cpu")
    assert choose_device("auto", "PERENNIAL_DEVICE").type in {"cpu", "cuda", "mps"}


@pytest.mark.parametrize("name", ["toaster", "cuda:99", "", "meta"])
def test_what_is_no_device_or_is_not_here_is_told_with_the_setting(name: str) -> None:
    with pytest.raises(InvalidSetting, match=f"PERENNIAL_SERVER_DEVICE is '{name}', .* Try `auto` or `cpu`"):
        choose_device(name, "PERENNIAL_SERVER_DEVICE")
