"""A pytest plugin: which tests run in the same process where several processes run them.

The tests of a module do, because they share fixtures, and so do all modules on the shared Ray head,
so that a run has one head. The modules with most slow tests are begun first.
"""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[2]


class ByModule(LoadScopeScheduling):
    """Hands out whole modules, and all that need Ray as one."""

    def _split_scope(self, nodeid: str) -> str:
        return share(nodeid)


def share(nodeid: str) -> str:
    """Return the name of the tests that a test runs with."""
    module = nodeid.partition("::")[0]
    return "ray" if _is_on_the_head(module) else module


@functools.cache
def _is_on_the_head(module: str) -> bool:
    return "ray_head" in (ROOT / module).read_text(encoding="utf-8")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByModule:
    """Use it in place of xdist's own, which hand out tests one by one."""
    config.option.loadscopereorder = False  # the order is that of the collection
    return ByModule(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort what several processes share out: what takes long comes first."""
    if not hasattr(config, "workerinput"):
        return
    slow = Counter(share(item.nodeid) for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[share(item.nodeid)])
