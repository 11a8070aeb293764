"""A stage's key changes with every module that its code can reach, and with no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from posetune.api import Stage
from posetune.stages.cache import stage_key
from posetune.stages.sources import reachable_modules, source_digest

FILES = {
    "__init__.py": "from ours.aside import thing\n",
    "flow.py": "from __future__ import annotations\nimport numpy\nfrom ours import shapes\n"
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ours.typed import T\n",
    "shapes.py": "def f():\n    from ours.inner.deep import g\n    return g()\n",
    "inner/__init__.py": "from .other import h\n",
    "inner/deep.py": "from . import h\nfrom ..late import g\n",
    "inner/other.py": "h = 1\n",
    "late.py": "g = len\n",
    "aside.py": "thing = 1\n",
    "typed.py": "T = int\n",
}
REACHED = {"flow", "shapes", "inner.deep", "inner", "inner.other", "late"}
PRINT = """
import json, sys
from posetune.stages.sources import reachable_modules, source_digest
print(json.dumps([reachable_modules("ours.flow"), source_digest("ours.flow")]))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / "ours" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def look(folder: Path) -> tuple[set[str], str]:
    """What a new process finds: within one, the modules that were imported stay what they are."""
    import json

    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{PRINT}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, digest = json.loads(found.stdout)
    return {name.removeprefix("ours.") for name in names}, digest


@pytest.mark.slow
def test_every_reachable_module_changes_the_digest_and_no_other_does(package: Path) -> None:
    names, digest = look(package)
    assert names == REACHED
    for name in FILES:
        file = package / "ours" / name
        file.write_text(FILES[name] + "# changed\n")
        module = name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        assert (look(package)[1] != digest) == (module in REACHED), name
        file.write_text(FILES[name])
    assert look(package)[1] == digest


def test_a_stage_of_the_toy_reaches_its_api() -> None:
    names = reachable_modules("posetune.testing.toy")
    assert {"posetune.testing.toy", "posetune.api", "posetune.resampling"} <= set(names)
    assert not {name for name in names if name.startswith(("posetune.study", "posetune.cli"))}


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"stage source posetune\.nowhere: no such module"):
        source_digest("posetune.nowhere")
    with pytest.raises(ValueError, match="no such module"):
        stage_key(
            Stage("flow", {}, ["posetune.nowhere"], 0, lambda folder, progress, work: None), "d"
        )


def test_looking_imports_no_package_of_others() -> None:
    """A worker looks at the start of a trial: matplotlib would cost it 25 MB."""
    looking = "import sys\nfrom posetune.stages.sources import source_digest\n"
    looking += "source_digest('posetune.testing.toy')\n"
    looking += "print([name for name in ('matplotlib', 'torch', 'ray') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", looking], capture_output=True, text=True)

    assert (done.stdout, done.stderr) == ("[]\n", "")
