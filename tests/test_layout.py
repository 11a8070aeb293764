"""Guards of the layout: platform/ is a source root, never a package."""

import subprocess
import sys
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
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "cluster" / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    direct = {
        requirement.partition(">")[0].partition("[")[0].strip().lower()
        for requirement in project["dependencies"]
    }
    assert direct <= pinned
