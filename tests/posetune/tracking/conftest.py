"""A sweep driven through the study alone, and what MLflow holds of it."""

from __future__ import annotations

from support.mlflow_scene import (
    contents,
    empty_store,
    other_home,
    postgres_tracking,
    scene,
    server,
    shown,
    sweep_spec,
)

__all__ = [
    "contents",
    "empty_store",
    "other_home",
    "postgres_tracking",
    "scene",
    "server",
    "shown",
    "sweep_spec",
]
