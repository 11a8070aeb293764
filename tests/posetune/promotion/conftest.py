"""A sweep driven through the study alone, and what MLflow holds of it."""

from __future__ import annotations

from support.mlflow_scene import (
    contents,
    other_home,
    postgres_tracking,
    scene,
    server,
    shown,
    sweep_spec,
)

__all__ = [
    "contents",
    "other_home",
    "postgres_tracking",
    "scene",
    "server",
    "shown",
    "sweep_spec",
]
