"""The README says what is so: its table of settings, its table of files, its links."""

import re
from pathlib import Path

import pytest

from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def settings_table() -> str:
    """The table as it should stand between the README's markers."""
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = f"`{default}`" if default not in ("", {}) else ""
        rows.append(f"| `PERENNIAL_{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(rows)


def test_the_readme_lists_every_setting_as_the_program_has_it() -> None:
    found = re.search(r"<!-- settings:[^\n]*-->\n(.*?)\n?<!-- /settings -->", README, re.DOTALL)
    assert found is not None
    assert found[1].strip() == settings_table(), f"The table should be:\n{settings_table()}"


def test_every_file_that_the_readme_names_exists() -> None:
    table = README.split("## Where is…?")[1].split("\n## ")[0]
    files = re.findall(r"`([\w/.-]+\.\w+)`", table)
    assert len(files) > 15
    assert [file for file in files if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("page", ["README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))])
def test_every_link_inside_the_repository_leads_somewhere(page: str) -> None:
    file = ROOT / page
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text(encoding="utf-8"))
    assert [target for target in targets if not (file.parent / target).exists()] == []


def test_a_folder_has_only_what_the_design_names() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == {"app", "worker"}
