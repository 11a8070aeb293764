"""Holds Kubernetes objects against the schema of their custom resource definition.

The API server drops what a schema does not know, without a word; here that is a fault.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator

__all__ = ["Definition"]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Definition:
    """The schema of one kind in one release."""

    def __init__(self, file: Path) -> None:
        """Read a definition, compressed by gzip."""
        text = gzip.decompress(file.read_bytes())
        versions = yaml.load(text, _LOADER)["spec"]["versions"]
        (stored,) = [version for version in versions if version["name"] == "v1"]
        self._validator = Draft7Validator(_strict(stored["schema"]["openAPIV3Schema"], top=True))

    def faults(self, manifest: dict[str, Any]) -> list[str]:
        """Return what a manifest has that the definition does not allow, with its path."""
        return [
            f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
            for error in self._validator.iter_errors(manifest)
        ]


def _strict(schema: dict[str, Any], *, top: bool = False) -> dict[str, Any]:
    """Return a schema that refuses unknown fields, in the words of JSON schema."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    strict = {k: v for k, v in schema.items() if k not in ("properties", "items", "format")}
    if "properties" in schema:
        strict["properties"] = {k: _strict(v) for k, v in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and not top:
            strict.setdefault("additionalProperties", False)
    if isinstance(schema.get("additionalProperties"), dict):
        strict["additionalProperties"] = _strict(schema["additionalProperties"])
    if "items" in schema:
        strict["items"] = _strict(schema["items"])
    return strict
