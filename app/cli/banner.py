"""What a first start says: where things are, the key made just now, and lines to paste.

Called by `running`. Writes to stdout, so that logs (stderr) can be sent elsewhere.
"""

import ipaddress

from rich.console import Console
from rich.text import Text

from app.settings import Settings


def address(settings: Settings) -> str:
    """The address a client on this machine uses."""
    host = settings.host
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{settings.port}"
    if ip.is_unspecified:
        ip = ipaddress.ip_address("127.0.0.1" if ip.version == 4 else "::1")
    return f"http://[{ip}]:{settings.port}" if ip.version == 6 else f"http://{ip}:{settings.port}"


def curl_lines(settings: Settings) -> list[str]:
    """Create a model, teach it 40 samples, ask for a prediction: each line to be pasted as it stands."""
    models = f"{address(settings)}/v1/models"
    key = "" if settings.auth == "off" else ' -H "Authorization: Bearer $PERENNIAL_KEY"'
    json = " -H 'Content-Type: application/json'"
    two = r"""{"features":[%s,0],"label":"wide"}\n{"features":[0,%s],"label":"tall"}\n"""
    samples = f"for i in $(seq 20); do printf '{two}' $i $i; done"
    return [
        f"""curl -s {models}{key}{json} -d '{{"name":"first","input":{{"kind":"features","size":2}}}}'""",
        f"{samples} | curl -s {models}/first/samples{key} -H 'Content-Type: application/x-ndjson' --data-binary @-",
        f"""curl -s {models}/first/predict{key}{json} -d '{{"inputs":[{{"features":[9,1]}}]}}'""",
    ]


def show(settings: Settings, made_key: str | None) -> None:
    """Print the banner of `perennial up`."""
    console = Console(highlight=False)
    url = address(settings)
    lines = [
        f"Serving at   {url}",
        f"API docs     {url}/docs",
        f"Your data    {settings.data_dir.resolve()}",
    ]
    if made_key is not None:
        lines.append(f"Admin key    {made_key}   (made just now, shown only once)")
    elif settings.auth == "off":
        lines.append("Keys         off: everyone on this machine may do everything")
    elif settings.admin_key:
        lines.append("Admin key    as in PERENNIAL_ADMIN_KEY")
    else:
        lines.append("Keys         as made before; `perennial keys create` makes another")
    console.rule("Perennial")
    for line in lines:  # unframed and unwrapped: each can be copied whole
        _plain(console, line)
    console.print()
    if settings.auth == "on":
        _plain(console, f"export PERENNIAL_URL={url} PERENNIAL_KEY={made_key or '…'}")
    for line in curl_lines(settings):
        _plain(console, line)
    _plain(console, "Create a model, teach it, and ask it a few seconds later. Stop with Ctrl-C.")


def _plain(console: Console, line: str) -> None:
    console.print(Text(line), soft_wrap=True)
