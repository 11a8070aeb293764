"""Guards of the layout: platform/ is a source root, never a package."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_no_package_is_named_after_a_stdlib_module() -> None:
    top_level = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    nested = {p.parent.name for p in (ROOT / "tests").rglob("__init__.py")}
    assert not (top_level | nested) & sys.stdlib_module_names


def test_platform_is_the_stdlib_module_from_the_repository_root() -> None:
    out = subprocess.run(
        [sys.executable, "-c", "import platform; print(platform.system())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip()


def test_tests_have_no_packages() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_every_direct_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "cluster" / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    direct = {
        requirement.partition(">")[0].partition("[")[0].strip().lower()
        for requirement in project["dependencies"]
    }
    assert direct <= pinned


def test_every_part_of_the_platform_stands_in_the_import_contracts() -> None:
    linted = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contracts = {contract["name"]: contract for contract in linted["contracts"]}
    folder = ROOT / "platform" / "posetune"
    parts = {f"posetune.{path.stem}" for path in folder.iterdir() if path.stem != "__init__"}
    parts -= {"posetune.__pycache__", "posetune.py"}
    layers = " | ".join(contracts["the platform's layers"]["layers"]).split(" | ")
    assert set(layers) == parts - {"posetune.testing"}
    for package, importers in {
        "ray": {"posetune.execution"},
        "mlflow": {"posetune.tracking", "posetune.promotion"},
        "optuna": {"posetune.study", "posetune.report"},
    }.items():
        (held,) = (c for c in contracts.values() if c.get("forbidden_modules") == [package])
        assert set(held["source_modules"]) == (parts - importers) | {"selfpose"}
