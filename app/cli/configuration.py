"""Settings as a command reads them: options over environment over `perennial.toml`, and mistakes said in words.

Called by every command that works on the data folder or starts a process; the HTTP commands need no settings.
"""

import difflib
import ipaddress
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.cli.printing import say
from app.errors import InvalidSetting
from app.settings import Settings

OF_THE_CLIENT = frozenset({"PERENNIAL_URL", "PERENNIAL_KEY", "PERENNIAL_MODEL"})  # of commands that ask a server


def read_settings(
    *,
    host: str | None = None,
    port: int | None = None,
    data_dir: Path | None = None,
    processes: int | None = None,
) -> Settings:
    """Read the settings; options left out (None) come from elsewhere. Raises InvalidSetting."""
    for line in stray_variables(os.environ):
        say(line, quiet=True)
    given: dict[str, Any] = {"host": host, "port": port, "data_dir": data_dir, "processes": processes}
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise InvalidSetting(in_words(error)) from error
    except SettingsError as error:
        raise InvalidSetting(f"A setting cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidSetting(f"perennial.toml is no valid TOML: {error}.") from error


def stray_variables(environ: Mapping[str, str]) -> list[str]:
    """One line for each PERENNIAL_ variable that names no setting: mistyped, it would be passed over in silence."""
    known = [f"PERENNIAL_{name.upper()}" for name in Settings.model_fields]
    lines = []
    for name in sorted(set(environ) - {*known, *OF_THE_CLIENT}):
        if name.startswith("PERENNIAL_"):
            near = difflib.get_close_matches(name, known, n=1)
            asked = f" Did you mean {near[0]}?" if near else ""
            lines.append(f"There is no setting {name}; it is passed over.{asked}")
    return lines


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


def make_data_dir(settings: Settings) -> None:
    """Make the data folder where there is none yet. Raises InvalidSetting where that cannot be."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSetting(
            f"PERENNIAL_DATA_DIR: expected a folder, or a place where one can be made; "
            f"{str(settings.data_dir)!r}: {error.strerror or error}."
        ) from error


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
