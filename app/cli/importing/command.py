"""`perennial import SOURCE`: its options. What they set going, numpy and Pillow too, is imported when it is called."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from app.errors import Invalid

HERE = "http://127.0.0.1:8000"
OF_TABLES, OF_NEW = "A table", "A new model"


def import_set(
    source: Annotated[
        Path,
        typer.Argument(help="A folder with a folder of pictures for each class, a .csv or .tsv file, or an .npz file."),
    ],
    *,
    model: Annotated[str, typer.Option("--model", "-m", envvar="PERENNIAL_MODEL", help="Which model to teach.")],
    test: Annotated[Path | None, typer.Option(help="A set that is never taught, only asked and reported.")] = None,
    label_column: Annotated[
        str | None, typer.Option(help="The column of classes.", rich_help_panel=OF_TABLES, show_default="label")
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="The column of paths to pictures.", rich_help_panel=OF_TABLES)
    ] = None,
    ignore_column: Annotated[
        list[str] | None, typer.Option(help="A column to leave out; repeat it.", rich_help_panel=OF_TABLES)
    ] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Make the model, if there is none.", rich_help_panel=OF_NEW)
    ] = False,
    architecture: Annotated[
        str, typer.Option(help="A network of the catalog or of your builders.", rich_help_panel=OF_NEW)
    ] = "",
    weights: Annotated[
        str | None, typer.Option(help="`imagenet`, or `sha256:…` of an added file.", rich_help_panel=OF_NEW)
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe's name, or a JSON file.", rich_help_panel=OF_NEW)] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Pixels a side of its pictures.", rich_help_panel=OF_NEW, show_default="as the set"),
    ] = None,
    first: Annotated[int, typer.Option(min=1, help="Samples of each class in the first stage.")] = 10,
    growth: Annotated[int, typer.Option(min=2, help="Each stage goes so many times as far as the one before.")] = 4,
    order: Annotated[
        Literal["informative", "random"], typer.Option(help="`informative`: what the model does not know goes first.")
    ] = "informative",
    seed: Annotated[int, typer.Option(help="Of the random order.")] = 0,
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Teach what stands there twice, or nearly, all the same.")
    ] = False,
    near: Annotated[int, typer.Option(min=0, max=15, help="Bits of 64 by which near-duplicates may differ.")] = 4,
    source_name: Annotated[str, typer.Option("--source", help="Who says so, in the receipts.")] = "import",
    journal: Annotated[
        Path | None,
        typer.Option(help="Remembers what is posted.", show_default="perennial-imports.db beside the data folder"),
    ] = None,
    patience: Annotated[float, typer.Option(min=1, help="Seconds in which nothing moves until it gives up.")] = 300,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; nothing is sent.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on stdout, the rest on stderr.")] = False,
    url: Annotated[str, typer.Option("--url", envvar="PERENNIAL_URL", help="Address of the server.")] = HERE,
    key: Annotated[str, typer.Option("--key", envvar="PERENNIAL_KEY", help="Your API key.", show_default=False)] = "",
) -> None:
    """Teach a large labelled set in stages; stopped at any point, the same command goes on where it was."""
    from app.cli.importing.course import Manner  # noqa: PLC0415  numpy, Pillow, rich
    from app.cli.importing.run import Asked, run  # noqa: PLC0415
    from app.cli.importing.sets import Columns  # noqa: PLC0415

    new_model: dict[str, Any] = {"network": {"architecture": architecture, "weights": weights}}
    if recipe is not None:
        new_model["recipe"] = _recipe(recipe)
    asked = Asked(
        source=source,
        model=model,
        test=test,
        columns=Columns(label_column, image_column, tuple(ignore_column or ())),
        new_model=new_model if create else None,
        size=size,
        manner=Manner(source_name, first, growth, order == "informative", seed, patience),
        keep_duplicates=keep_duplicates,
        near_bits=near,
        journal=journal,
        dry_run=dry_run,
        as_json=as_json,
        url=url,
        key=key,
    )
    raise typer.Exit(run(asked))


def _recipe(given: str) -> Any:
    file = Path(given)
    if file.suffix != ".json":
        return given
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid(f"The recipe {given!r} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise Invalid(f"The recipe {given!r} is no JSON: {error}.") from error
