"""Which device a process computes on, by the name that a setting gives. Asked by the composition roots."""

import torch

from app.errors import InvalidSetting


def choose_device(name: str, setting: str) -> torch.device:
    """Take an accelerator where there is one for `auto`; InvalidSetting for what is no device or is not here."""
    if name != "auto":
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise InvalidSetting(
                f"{setting} is {name!r}, which cannot be used here ({reason}). Try `auto` or `cpu`."
            ) from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
