"""`perennial check module:function`: what the product finds about a user's own network, as a table.

Imports torch, and the user's module from the folder the command is called in.
"""

import sys
from pathlib import Path

import typer
from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.printing import say
from app.networks.inspection import inspect_builder
from app.recipe import FeaturesInput, ImageInput


def check_builder(target: str, form: str) -> int:
    """Print every finding; 0 when all hold, 1 otherwise."""
    sys.path.insert(0, str(Path.cwd()))  # `python -m` would have it; a console script does not
    findings = inspect_builder(target, input_from(form))
    grid = Table("", "", "", box=box.SIMPLE, show_header=False)
    for finding in findings:
        mark = Text("ok", style="green") if finding.ok else Text("no", style="bold red")
        grid.add_row(mark, Text(finding.name), Text(finding.words))
    Console(highlight=False).print(grid)
    fits = all(finding.ok for finding in findings)
    if fits:
        say(f'It fits. Allow it by PERENNIAL_BUILDERS="{target.partition(":")[0].rpartition(".")[2]}={target}"')
    else:
        say("It does not fit yet: mend what stands beside `no`.")
    return 0 if fits else 1


def input_from(form: str) -> FeaturesInput | ImageInput:
    """Read `features:64` or `image:32x3`. Raises typer.BadParameter."""
    kind, _, numbers = form.partition(":")
    try:
        if kind == "features":
            return FeaturesInput.model_validate({"size": numbers})
        if kind == "image":
            size, _, channels = numbers.partition("x")
            return ImageInput.model_validate({"size": int(size), "channels": int(channels or 3)})
    except (ValidationError, ValueError) as error:
        raise typer.BadParameter(
            f"expected features:64, or image:32x3 (pixels a side x 1 or 3 channels), not {form!r}", param_hint="--input"
        ) from error
    raise typer.BadParameter(f"expected features:SIZE or image:SIZExCHANNELS, not {form!r}", param_hint="--input")
