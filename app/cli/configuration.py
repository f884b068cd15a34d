"""Settings as a command reads them: options over environment over `perennial.toml`, and mistakes said in words.

Called by every command that works on the data folder or starts a process; the HTTP commands need no settings.
"""

import ipaddress
import json
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.errors import InvalidSetting
from app.settings import Settings


def read_settings(*, host: str | None = None, port: int | None = None, data_dir: Path | None = None) -> Settings:
    """Read the settings; options left out (None) come from elsewhere. Raises InvalidSetting."""
    given: dict[str, Any] = {"host": host, "port": port, "data_dir": data_dir}
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise InvalidSetting(in_words(error)) from error
    except SettingsError as error:
        raise InvalidSetting(f"A setting cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidSetting(f"perennial.toml is no valid TOML: {error}.") from error


def in_words(error: ValidationError) -> str:
    """One line for each wrong setting: its name in the environment, what was found, what is expected."""
    lines = []
    for problem in error.errors(include_url=False):
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"There is no setting named {name!r} (in perennial.toml).")
            continue
        came = "" if name == "admin_key" else f", not {problem['input']!r}"
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"PERENNIAL_{name.upper()}: {message}{came}.")
    return "\n".join(lines)


def require_safe_address(settings: Settings) -> None:
    """Raise InvalidSetting where `auth=off` would let a network in."""
    if settings.auth == "off" and not is_loopback(settings.host):
        raise InvalidSetting(
            f"PERENNIAL_AUTH=off lets everyone in, so it may only listen on loopback, not on {settings.host!r}. "
            "Set PERENNIAL_HOST=127.0.0.1, or turn keys on."
        )


def is_loopback(host: str) -> bool:
    """Whether nothing but this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def environment(settings: Settings) -> dict[str, str]:
    """The same settings as environment variables, so that a child process reads exactly these."""
    variables = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Path):
            value = value.resolve()
        elif isinstance(value, dict):
            value = ",".join(f"{key}={builder}" for key, builder in value.items())
        elif isinstance(value, bool):
            value = json.dumps(value)
        variables[f"PERENNIAL_{name.upper()}"] = str(value)
    return variables
