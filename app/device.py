"""Which device a process computes on, by the name that a setting gives. Asked by the composition roots."""

import torch

from app.errors import InvalidSetting

KINDS = ("cpu", "cuda", "mps")


def choose_device(name: str, setting: str) -> torch.device:
    """Take an accelerator where there is one for `auto`; InvalidSetting for what is no device or is not here."""
    if name != "auto":
        try:
            device = torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            raise _unusable(name, setting, str(error).splitlines()[0]) from error
        if device.type not in KINDS:
            raise _unusable(name, setting, f"known are {', '.join(KINDS)}")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _unusable(name: str, setting: str, reason: str) -> InvalidSetting:
    return InvalidSetting(f"{setting} is {name!r}, which cannot be used here ({reason}). Try `auto` or `cpu`.")
