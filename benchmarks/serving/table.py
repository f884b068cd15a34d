"""Tables for people out of a result's JSON, and into the README.

    benchmarks/serving/table.py results/DATE.json

puts them between the README's two marks.
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- serving: begin -->", "<!-- serving: end -->"
TITLES = {
    ("resnet18", "fp32"): "ResNet-18, 64 × 64 JPEG, fp32",
    ("resnet18", "bf16"): "ResNet-18, 64 × 64 JPEG, bf16",
    ("mlp", "fp32"): "MLP 784-128-10, 784 numbers in JSON",
}


def tables(found: Mapping[str, Any]) -> str:
    """One Markdown table for each model and number format that was measured."""
    parts = []
    for kind, title in TITLES.items():
        rows = [row for row in found["rows"] if (row["model"], row["dtype"]) == kind]
        if rows:
            limits = {name: one["rps"] for name, one in found["limits"].items() if name.endswith(" | ".join(kind))}
            parts.append(table(title, rows, found["plan"]["clients"], limits))
    return "\n\n".join(parts)


def table(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    clients: Sequence[int],
    limits: Mapping[str, Sequence[float]],
) -> str:
    """Requests a second as median [least–most] of the rounds, and the median of p50 and p99 in milliseconds."""
    heads = [f"{count} client{'s' if count > 1 else ''}" for count in clients]
    lines = [f"| {' | '.join([title, *heads, 'settings'])} |", "|" + "---|" * (len(clients) + 2)]
    for row in rows:
        cells = [cell([one for done in row["rounds"] for one in done if one["clients"] == count]) for count in clients]
        chosen = ", ".join(f"{name.removeprefix('BENCH_').lower()} {value}" for name, value in row["settings"].items())
        lines.append(f"| {' | '.join([row['system'], *cells, chosen])} |")
    for name, rates in limits.items():
        kind = name.split(" | ", maxsplit=1)[0]
        lines.append(f"| *limit: {kind}, no HTTP* | {spread(rates)} |" + " |" * len(clients))
    return "\n".join(lines)


def cell(measured: Sequence[Mapping[str, Any]]) -> str:
    """The rounds of one row with one number of clients."""
    if not measured:
        return "failed"
    p50, p99 = (statistics.median(one[name] for one in measured) for name in ("p50_ms", "p99_ms"))
    errors = sum(one["errors"] for one in measured)
    said = f", **{errors} errors**" if errors else ""
    return f"{spread([one['rps'] for one in measured])}; {milliseconds(p50)} / {milliseconds(p99)} ms{said}"


def spread(values: Sequence[float]) -> str:
    """Median, and least and most where there are several."""
    middle = f"{statistics.median(values):,.0f}"
    return middle if len(values) == 1 else f"{middle} [{min(values):,.0f}–{max(values):,.0f}]"


def milliseconds(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def filled(readme: str, content: str) -> str:
    """The README with what stands between the marks replaced."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise ValueError(f"The README has no {BEGIN} … {END}.")
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{after}"


def beside(found: Mapping[str, Any]) -> str:
    """What the figures have to be read beside."""
    machine, plan, versions = found["machine"], found["plan"], found["versions"]
    peers = ", ".join(versions[peer].replace("==", " ") for peer in ("litserve", "bentoml", "ray", "mlserver"))
    return (
        f"{found['date']}; {machine['processor']}, {machine['cores']} cores; Python {machine['python']}, "
        f"torch {versions['torch']}, fastapi {versions['fastapi']}, uvicorn {versions['uvicorn']}, {peers}, "
        f"torchserve 0.12.0. {plan['rounds']} rounds of {plan['seconds']:g} s; batches of at most "
        f"{plan['largest batch']}, window {plan['window, ms']:g} ms where the system has one. "
        "A cell: requests a second, median [least–most] of the rounds; p50 / p99."
    )


def main() -> int:
    found = json.loads(Path(sys.argv[1]).read_text())
    README.write_text(filled(README.read_text(), f"{beside(found)}\n\n{tables(found)}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
