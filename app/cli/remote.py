"""The commands that speak HTTP to a running server: models, predict, label, versions, recipes, rollback.

They read no settings and no database: an address and a key are all they need.
"""

import base64
import json
import mimetypes
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import version_matrix
from app.cli.connection import Connection
from app.cli.printing import in_short, percent, say, table
from app.errors import Invalid

URL = Annotated[str, typer.Option("--url", envvar="PERENNIAL_URL", help="Address of the server.")]
Key = Annotated[str, typer.Option("--key", envvar="PERENNIAL_KEY", help="Your API key.", show_default=False)]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", envvar="PERENNIAL_MODEL", help="Which model; not needed if there is one.")
]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]
HERE = "http://127.0.0.1:8000"

MODELS = typer.Typer(help="Models of a running server.", no_args_is_help=True)


def register(commands: typer.Typer) -> None:
    """Add this module's commands."""
    commands.add_typer(MODELS, name="models")
    commands.command()(predict)
    commands.command()(label)
    commands.command()(versions)
    commands.command()(recipes)
    commands.command()(rollback)


@MODELS.command("create")
def create_model(
    name: Annotated[str | None, typer.Argument(help="Small letters, digits, - and _.")] = None,
    *,
    features: Annotated[int | None, typer.Option(help="Input: vectors of so many numbers.")] = None,
    image: Annotated[str | None, typer.Option(help="Input: pictures, `32x3` (pixels a side x channels).")] = None,
    architecture: Annotated[str, typer.Option(help="A network of the catalog or of your builders.")] = "",
    weights: Annotated[str | None, typer.Option(help="`imagenet`, or `sha256:…` of an added file.")] = None,
    labels: Annotated[list[str] | None, typer.Option("--label", help="A class; repeat it. May be left out.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A named recipe; `perennial recipes` shows them.")] = None,
    family: Annotated[str | None, typer.Option(help="The models with which it shares a backbone.")] = None,
    file: Annotated[Path | None, typer.Option(help="The whole request as JSON instead, recipe and all.")] = None,
    url: URL = HERE,
    key: Key = "",
) -> None:
    """Create a model; it answers at once, and learns from its first labels."""
    if file is not None:
        body = _json_of(file)
    elif name is None or (features is None) == (image is None):
        raise typer.BadParameter("give a NAME and one of --features and --image, or --file")
    else:
        body = {
            "name": name,
            "input": {"kind": "features", "size": features} if image is None else image_input(image),
            "network": {"architecture": architecture, "weights": weights},
            "labels": labels or [],
            "recipe": recipe,
            "family": family,
        }
    with Connection(url, key) as server:
        model = server.post("/v1/models", body)
    say(f"Model {model['name']} is live as version {model['live']}.")


@MODELS.command("show")
def show_models(
    name: Annotated[str | None, typer.Argument(help="One model; all when left out.")] = None,
    url: URL = HERE,
    key: Key = "",
) -> None:
    """Show models: what is live, what waits, how well they do."""
    with Connection(url, key) as server:
        if name is None:
            models = server.get("/v1/models")["models"]
            table(
                ["name", "live", "labels", "queued", "accuracy", "pinned", "learning"],
                [
                    (
                        model["name"],
                        model["live"],
                        len(model["labels"]),
                        model["queue"]["queued"],
                        percent(model["accuracy"]),
                        model["pinned"],
                        model["learning"],
                    )
                    for model in models
                ],
            )
        else:
            model = server.get(f"/v1/models/{name}")
            table(["field", "value"], _rows(model))


def predict(
    file: Annotated[Path, typer.Argument(help="An image, or JSON: a list of numbers, or a list of such lists.")],
    *,
    model: ModelOption = None,
    version: Annotated[int | None, typer.Option(help="Ask this version instead of the live one.")] = None,
    top_k: Annotated[int, typer.Option(help="How many classes to show.")] = 3,
    url: URL = HERE,
    key: Key = "",
) -> None:
    """Ask what a file shows."""
    with Connection(url, key) as server:
        path = f"/v1/models/{_the_model(server, model)}/predict"
        query = {} if version is None else {"version": version}
        answer = server.ask("POST", path, params=query, json={"inputs": inputs_of(file), "top_k": top_k})
    say(f"{answer['model']}, version {answer['version']}")
    table(
        ["prediction", "label", "score", "top"],
        [
            (p["prediction_id"], p["label"], p["score"], ", ".join(f"{t['label']} {t['score']:.2f}" for t in p["top"]))
            for p in answer["predictions"]
        ],
    )


def label(
    label: Annotated[str, typer.Argument(help="What it is.")],
    *,
    prediction: Annotated[str | None, typer.Option(help="The id of a prediction that is labelled.")] = None,
    file: Annotated[Path | None, typer.Option(help="The input itself: an image, or JSON numbers.")] = None,
    model: ModelOption = None,
    source: Annotated[str | None, typer.Option(help="Who says so.")] = None,
    sample_id: Annotated[str | None, typer.Option("--id", help="Your own id: sent twice, it counts once.")] = None,
    url: URL = HERE,
    key: Key = "",
) -> None:
    """Teach: give an input, or an earlier prediction, its right label."""
    if (prediction is None) == (file is None):
        raise typer.BadParameter("give one of --prediction and --file")
    inputs = [{"prediction_id": prediction}] if file is None else inputs_of(file)
    extra = {"source": source, "id": sample_id if len(inputs) == 1 else None}
    given = {name: value for name, value in extra.items() if value is not None}
    body = {"samples": [{**content, "label": label, **given} for content in inputs]}
    with Connection(url, key) as server:
        answer = server.post(f"/v1/models/{_the_model(server, model)}/samples", body)
    table(["sample", "state", "note"], [(s["id"], s["state"], s.get("note")) for s in answer["samples"]])
    for refused in answer["rejected"]:
        say(f"Not taken: {refused['detail']}", quiet=True)
    if answer["rejected"]:
        raise typer.Exit(1)


def versions(
    *,
    model: ModelOption = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.")] = 20,
    matrix: Annotated[bool, typer.Option("--matrix", help="How each did on each class and in each span.")] = False,
    span: Annotated[str, typer.Option("--slice", help="Of the matrix: `hour`, `day`, `week` or `month`.")] = "day",
    url: URL = HERE,
    key: Key = "",
) -> None:
    """Show the versions of a model, newest first, each with what the gate said."""
    with Connection(url, key) as server:
        name = _the_model(server, model)
        if matrix:
            version_matrix.show(server.get(f"/v1/models/{name}/versions/matrix", limit=limit, slice=span))
            return
        found = server.get(f"/v1/models/{name}/versions", limit=limit)["versions"]
    rows = [
        (v["version"], "live" if v["live"] else "", v["parent"], v["verdict"], v["created_at"], v["reason"])
        for v in found
    ]
    table(["version", "", "parent", "verdict", "made", "reason"], rows)


def recipes(
    name: Annotated[str | None, typer.Argument(help="One, spelled out in full; all in short when left out.")] = None,
    url: URL = HERE,
    key: Key = "",
) -> None:
    """Show the recipes that have names: what each is for, and what it says."""
    with Connection(url, key) as server:
        answer = server.get("/v1/recipes")
    show_recipes(answer, name)


def rollback(
    *,
    reason: Reason,
    model: ModelOption = None,
    to: Annotated[int | None, typer.Option(help="Which version; the one that was live before when left out.")] = None,
    samples: Annotated[
        str, typer.Option(help="What becomes of the samples learned since: `quarantine`, `requeue` or `keep`.")
    ] = "quarantine",
    pin: Annotated[bool, typer.Option(help="Hold promotions until you unpin.")] = False,
    url: URL = HERE,
    key: Key = "",
) -> None:
    """Serve an earlier version again, at once."""
    with Connection(url, key) as server:
        path = f"/v1/models/{_the_model(server, model)}/rollback"
        body: dict[str, Any] = {"samples": samples, "pin": pin, "reason": reason}
        if to is not None:
            body["to"] = to
        answer = server.post(path, body)
    say(
        f"Version {answer['live']} is live, {answer['previous']} was: "
        f"on {len(answer['servers'])} server(s) within {answer['took_ms']} ms."
    )
    for fate, count in answer["samples"].items():
        say(f"{count} samples {fate.replace('_', ' ')}.")
    for straggler in answer["stragglers"]:
        say(f"Not yet there: {_flat(straggler)}", quiet=True)


def image_input(text: str) -> dict[str, Any]:
    """Read `32x3` as an image input. Raises typer.BadParameter."""
    size, _, channels = text.partition("x")
    if not size.isdecimal() or (channels and not channels.isdecimal()):
        raise typer.BadParameter(f"expected pixels a side x channels, as in 32x3, not {text!r}")
    return {"kind": "image", "size": int(size), "channels": int(channels or 3)}


def inputs_of(file: Path) -> list[dict[str, Any]]:
    """Read what a file holds as inputs of the API. Raises Invalid where it is neither an image nor numbers."""
    if not file.is_file():
        raise Invalid(f"There is no file {str(file)!r}.")
    if (mimetypes.guess_type(file.name)[0] or "").startswith("image/"):
        return [{"image": base64.b64encode(file.read_bytes()).decode()}]
    content = _json_of(file)
    if isinstance(content, list) and content and all(isinstance(number, int | float) for number in content):
        return [{"features": content}]
    if isinstance(content, list) and content and all(isinstance(row, list) for row in content):
        return [{"features": row} for row in content]
    raise Invalid(f"{str(file)!r} holds neither a list of numbers nor a list of such lists.")


def show_recipes(answer: dict[str, Any], name: str | None) -> None:
    """Print what each named recipe is for and what it sets; of one that is named, every part. Raises Invalid."""
    known = {recipe["name"]: recipe for recipe in answer["recipes"]}
    if name is not None and name not in known:
        raise Invalid(f"There is no recipe named {name!r}; expected one of {', '.join(known)}.")
    for recipe in known.values() if name is None else [known[name]]:
        say(f"{recipe['name']}: {recipe['about']}")
        parts = recipe["differs"] if name is None else recipe["recipe"]
        if parts:
            table(["part", "says"], [(part, _flat(value)) for part, value in parts.items()])
        else:
            say("It is what a recipe is that says nothing.\n")
    if name is None:
        say("All else is as in the default recipe; `perennial recipes NAME` spells one out.", quiet=True)


def _the_model(server: Connection, name: str | None) -> str:
    """The model that is meant: the one named, or the only one there is."""
    if name is not None:
        return name
    names = [model["name"] for model in server.get("/v1/models")["models"]]
    if len(names) == 1:
        return str(names[0])
    if not names:
        raise Invalid("There is no model yet. `perennial models create` makes one.")
    raise Invalid(f"There are several models; name one with --model: {', '.join(names)}.")


def _json_of(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Invalid(f"There is no file {str(file)!r}.") from None
    except ValueError as error:
        raise Invalid(f"{str(file)!r} is neither an image nor JSON: {error}.") from error


def _rows(model: dict[str, Any]) -> list[tuple[str, str]]:
    """A model field by field; its recipe, which is deep, part by part."""
    rows = []
    for field, value in model.items():
        if field == "recipe":
            rows += [(f"recipe: {part}", _flat(inner)) for part, inner in value.items()]
        else:
            rows.append((field, percent(value) if field == "accuracy" else _flat(value)))
    return rows


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(_flat(item) for item in value) or "–"
    return in_short(value)
