"""The shape of the code: who imports whom, what never stands in a file, how large a file may be."""

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("app", "worker")
LINES = 300
LONGER = {  # the tables on one page, stores whose methods each are one transaction
    "app/storage/tables.py",
    "app/storage/intake.py",
}


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def named(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )


def test_imports_go_downwards_only() -> None:
    result = run(
        "-c",
        "import sys; from importlinter import cli; sys.path.insert(0, '.'); "
        "sys.exit(cli.lint_imports(is_debug_mode=False, no_cache=True))",
    )

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_an_init_file_is_empty_or_one_sentence(package: str) -> None:
    longer = [
        path
        for path in (ROOT / package).rglob("__init__.py")
        if not _is_empty_or_a_sentence(path.read_text(encoding="utf-8"))
    ]
    assert named(longer) == []


def _is_empty_or_a_sentence(text: str) -> bool:
    body = ast.parse(text).body
    return not body or (
        len(body) == 1 and ast.get_docstring(ast.parse(text)) is not None and len(text.splitlines()) == 1
    )


def test_folders_of_tests_and_migrations_are_no_packages() -> None:
    # An `alembic` package here would hide the library.
    found = [path for folder in ("tests", "alembic", "benchmarks") for path in (ROOT / folder).rglob("__init__.py")]
    assert named(found) == []


def test_no_file_is_longer_than_a_reader_holds_in_mind() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert {path: size for path, size in sizes.items() if size > LINES and path not in LONGER} == {}


def test_every_module_says_what_it_holds() -> None:
    silent = [
        path
        for path in sources()
        if path.name != "__init__.py" and ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None
    ]
    assert named(silent) == []


def _dangers(tree: ast.Module) -> Iterator[str]:
    """What could run a stranger's bytes, or hides a cycle of imports."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="pickle" | "dill" | "marshal" as module), attr=name) if not (
                name.endswith("Error")  # what torch raises may be named
            ):
                yield f"{module}.{name}"
            case ast.ImportFrom(module="pickle" | "dill" | "marshal" as module):
                yield f"from {module} import"
            case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
                yield "TYPE_CHECKING"
            case ast.Call(func=ast.Name(id="eval" | "exec" as name)):
                yield name
            case ast.Call(func=ast.Attribute(value=ast.Name(id="yaml"), attr="load" | "unsafe_load")):
                yield "yaml.load"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load"), keywords=keywords):
                safe = any(
                    keyword.arg == "weights_only"
                    and isinstance(keyword.value, ast.Constant)
                    and keyword.value.value is True
                    for keyword in keywords
                )
                if not safe:
                    yield "torch.load without weights_only=True"
            case ast.Global():
                yield "global"


def test_nothing_runs_what_a_file_says_and_no_import_is_only_for_types() -> None:
    found = {
        str(path.relative_to(ROOT)): dangers
        for path in sources()
        if (dangers := list(_dangers(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "pickle.loads(data)",
        "from pickle import loads",
        "eval('1')",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "yaml.load(text)",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING: pass",
    ],
)
def test_the_search_for_dangers_finds_them(text: str) -> None:
    assert list(_dangers(ast.parse(text)))


@pytest.mark.parametrize(
    "module", ["worker.loop", "app.cli.entry", "app.networks.spec", "app.recipe", "app.storage.queue"]
)
def test_a_module_can_be_imported_without_torch(module: str) -> None:
    program = f"""
        import sys

        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("torch", "torchvision"):
                    raise ImportError(name + " is blocked")

        sys.meta_path.insert(0, Blocked())
        import {module}
    """
    result = run("-c", textwrap.dedent(program))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("module", ["app.main", "worker.__main__", "app.cli.entry"])
def test_nothing_is_made_at_import(module: str, tmp_path: Path) -> None:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_lock_names_no_address() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if "://" in line] == []


def test_the_test_command_is_that_of_the_readme() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")
