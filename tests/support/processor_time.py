"""A pytest plugin: how much processor time each test took, in the JUnit report.

With `--most-processor-s` a test that is not marked `slow` fails where it took more. What only the
first test of a process pays, the imports, is then paid before.
"""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Generator
from typing import Any

import pytest

PROPERTY = "processor_s"
HEAVY = ("torch", "ray.tune", "mlflow", "optuna", "matplotlib.figure", "cv2", "scipy.stats")
IMPORTED_FIRST = (*HEAVY, "plotly.graph_objects", "sqlalchemy", "posetune.cli.app")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--most-processor-s",
        type=float,
        help="Fail each test without `slow` that takes more seconds of processor time.",
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    """Pay for the imports before the first test, where tests are measured."""
    if session.config.getoption("--most-processor-s") is not None:
        for name in IMPORTED_FIRST:
            importlib.import_module(name)


def pytest_collection_finish() -> None:
    """Take the modules out of garbage collections; which test meets a full one is chance."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Measure a test, with the processes that it has waited for."""
    before = _used_s()
    try:
        return (yield)
    finally:
        item.user_properties.append((PROPERTY, round(_used_s() - before, 3)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test that is not marked `slow` and is."""
    report = yield
    most = item.config.getoption("--most-processor-s")
    used = dict(item.user_properties).get(PROPERTY, 0.0)
    is_judged = most is not None and report.when == "call" and report.passed
    if is_judged and used > most and item.get_closest_marker("slow") is None:
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} took {used:.1f} s of processor time; above {most:g} s a test is "
            "marked `slow`, or made smaller"
        )
    return report


def _used_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
