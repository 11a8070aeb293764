"""Lists every field that a sweep file can set, and describes sweep files by a JSON schema.

Both are read from the models that check a sweep file: `SweepSpec`, and the configuration model of
the trainable. So neither can say anything else than what `posetune check` accepts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from posetune.api import Trainable
from posetune.spec.parameters import Choice, FloatRange, IntRange
from posetune.spec.registration import DEFAULT_TRAINABLE
from posetune.spec.sweep import SweepSpec

__all__ = [
    "FieldDescription",
    "as_yaml",
    "config_fields",
    "sweep_fields",
    "sweep_schema",
]

Schema = dict[str, Any]
"""A JSON schema (draft 07, which every editor knows) that refers to nothing outside itself."""

DRAFT = "http://json-schema.org/draft-07/schema#"
NUMBERS = {"integer": "whole number", "number": "number"}
NAME_UNITS = {"mm": "mm", "px": "px", "s": "s", "deg": "degrees", "mb": "MB", "hours": "hours"}
"""The unit that the last part of a field's name says, as in `map_px`."""
HELP_UNITS = {
    "in pixels": "px",
    "in crop coordinates": "crop",
    "Seconds": "s",
    "No unit": "1",
}
"""The unit that words of a field's help say. `crop`: the crop's sides are 2 long, from -1 to 1."""
COUNTED = re.compile(
    r"[Nn]umber of (.+?)(?= (?:of|for|from|over|that|in|inside|on|which|after)\b|[,;.])"
)
"""What a field counts, as its help says it: `Number of epochs of a complete trial.`"""


@dataclass(frozen=True)
class FieldDescription:
    """Describes one field of a sweep file or of a trainable's configuration."""

    name: str
    """Name of the field, with the sections that it stands in, joined by dots."""
    schema: Schema
    """JSON schema of the field's values."""
    required: bool
    """Whether the field must be given, because it has no default."""
    default: Any
    """Default of the field as a JSON value; None if it has none, or if that is `null`."""
    help: str
    """Description of the field, in sentences."""

    @property
    def values(self) -> str:
        """Kind and bounds of the field's values, in words."""
        return _words(self.schema)

    @property
    def unit(self) -> str:
        """The unit of its values, `1` for a pure number; empty if they are no numbers.

        The values of a searched parameter have its field's unit.
        """
        if self.name.startswith("search.") or not _is_number(self.schema):
            return ""
        suffix = self.name.rpartition(".")[2].rpartition("_")[2]
        if suffix in NAME_UNITS:
            return NAME_UNITS[suffix]
        for words, unit in HELP_UNITS.items():
            if words in self.help:
                return unit
        counted = COUNTED.search(self.help)
        return counted[1] if counted and self.help.startswith(("Number of", "Highest")) else "1"

    def mentions(self, word: str) -> bool:
        """Return whether a word stands in the field's name or help, whatever its case."""
        return word.casefold() in f"{self.name} {self.help}".casefold()

    def as_json(self) -> dict[str, Any]:
        """Return the description as JSON values."""
        return {
            "name": self.name,
            "default": self.default,
            "required": self.required,
            "values": self.values,
            "unit": self.unit,
            "help": self.help,
            "schema": self.schema,
        }


def config_fields(model: type[BaseModel]) -> list[FieldDescription]:
    """Return the fields of a trainable's configuration, by the names that a sweep file uses."""
    return _describe(model, _inline_schema(model))


def sweep_fields() -> list[FieldDescription]:
    """Return the fields of a sweep file, and those of a searched parameter as `search.FIELD...`."""
    found = _describe(SweepSpec, _inline_schema(SweepSpec))
    at = next(i for i, field in enumerate(found) if field.name == "search") + 1
    kinds: Sequence[type[BaseModel]] = (FloatRange, IntRange, Choice)
    of_parameters = [
        field for kind in kinds for field in _describe(kind, _inline_schema(kind), "search.FIELD.")
    ]
    distinct = [f for i, f in enumerate(of_parameters) if f not in of_parameters[:i]]
    return [*found[:at], *distinct, *found[at:]]


def sweep_schema(name: str, trainable: type[Trainable]) -> Schema:
    """Return the JSON schema of the sweep files of one trainable.

    It knows what can be said of each key alone. What hangs on several keys, such as an image size
    that the store does not have, is for `posetune check` to find.

    Args:
        name: the trainable as a sweep file names it.
        trainable: its class.
    """
    schema = _inline_schema(SweepSpec)
    properties = schema["properties"]
    properties["trainable"] = {
        "const": name,
        "description": properties["trainable"]["description"],
    }
    if name != DEFAULT_TRAINABLE:
        schema["required"] = ["trainable", *schema["required"]]
    properties["objective"]["properties"]["metric"]["enum"] = list(trainable.metrics)
    search = properties["search"]
    search["additionalProperties"] = False
    search["properties"] = {
        field.name: _parameter_schema(field) for field in config_fields(trainable.config_model)
    }
    fixed = properties["fixed"]
    fixed["additionalProperties"] = False
    fixed["properties"] = _with_dotted_names(_inline_schema(trainable.config_model))["properties"]
    return {
        "$schema": DRAFT,
        "title": f"A sweep of {name}",
        **schema,
    }


def as_yaml(value: Any) -> str:
    """Return a value as it can be written into a sweep file, in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("...\n").strip()


def _describe(
    model: type[BaseModel], schema: Schema, prefix: str = "", given: BaseModel | None = None
) -> list[FieldDescription]:
    """Describe the fields of a model and of the models in it, in their order.

    Args:
        model: the model.
        schema: its JSON schema, inlined.
        prefix: what stands before the names of its fields.
        given: the model's instance that is the default of the field that holds it, if there is one.
    """
    found: list[FieldDescription] = []
    for name, info in model.model_fields.items():
        key = info.alias or name
        of_field = schema["properties"][key]
        required = info.is_required() and given is None
        default = (
            info.get_default(call_default_factory=True) if given is None else getattr(given, name)
        )
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            instance = default if isinstance(default, BaseModel) else None
            found += _describe(inner, of_field, f"{prefix}{key}.", instance)
            continue
        about = {"default", "description"}
        found.append(
            FieldDescription(
                name=f"{prefix}{key}",
                schema={k: v for k, v in of_field.items() if k not in about},
                required=required,
                default=None if required else to_jsonable_python(default),
                help=info.description or "",
            )
        )
    return found


def _inline_schema(model: type[BaseModel]) -> Schema:
    schema = model.model_json_schema()
    inlined: Schema = _inline(schema, schema.get("$defs", {}))
    return inlined


def _inline(node: Any, definitions: Mapping[str, Any]) -> Any:
    """Return a schema with its references replaced by what they refer to, and without titles."""
    if isinstance(node, list):
        return [_inline(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    kept: Schema = {}
    for key, value in node.items():
        if key in ("default", "enum", "const"):
            kept[key] = value
        elif key in ("properties", "patternProperties"):
            kept[key] = {name: _inline(inner, definitions) for name, inner in value.items()}
        elif key == "prefixItems":  # as draft 07 calls it
            kept["items"] = _inline(value, definitions)
        elif key not in ("$defs", "title"):
            kept[key] = _inline(value, definitions)
    return kept


def _with_dotted_names(schema: Schema) -> Schema:
    """Return an object's schema that also takes what is in its objects, by dotted names."""
    properties: Schema = {}
    for name, of_field in schema["properties"].items():
        if "properties" not in of_field:
            properties[name] = of_field
            continue
        inner = _with_dotted_names(of_field)
        properties[name] = inner
        properties |= {f"{name}.{key}": value for key, value in inner["properties"].items()}
    kept = {key: value for key, value in schema.items() if key not in ("required", "default")}
    return {**kept, "properties": properties}


def _parameter_schema(field: FieldDescription) -> Schema:
    """Return the schema of what stands behind a field's name in `search`."""
    alternatives = [s for s in field.schema.get("anyOf", [field.schema]) if s.get("type") != "null"]
    value = alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}
    kinds: list[Schema] = []
    for kind, model, types in (
        ("float", FloatRange, {"number"}),
        ("int", IntRange, {"number", "integer"}),
    ):
        of_value = [s for s in alternatives if s.get("type") in types and "enum" not in s]
        if of_value:
            of_kind = _inline_schema(model)
            of_kind["properties"][kind]["items"] = [of_value[0], of_value[0]]
            kinds.append(of_kind)
    of_choice = _inline_schema(Choice)
    of_choice["properties"]["choice"]["items"] = value
    return {"description": field.help, "anyOf": [*kinds, of_choice]}


def _is_number(schema: Schema) -> bool:
    alternatives = schema.get("anyOf", [schema])
    return any(s.get("type") in NUMBERS and "enum" not in s for s in alternatives)


def _words(schema: Schema) -> str:
    """Return the values that a schema takes, in words."""
    if "enum" in schema:
        *others, last = [as_yaml(value) for value in schema["enum"]]
        return f"{', '.join(others)} or {last}" if others else last
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_words(s) for s in schema[key]))
    kind = schema.get("type")
    if kind in NUMBERS:
        return " ".join(part for part in (NUMBERS[kind], _bounds(schema)) if part)
    if kind == "array":
        items = schema.get("items", {})
        if isinstance(items, list):
            return f"[{', '.join(_words(item) for item in items)}]"
        return f"list of {_words(items)}"
    named = {"boolean": "true or false", "string": "text", "null": "null", "object": "mapping"}
    return named.get(str(kind), "any value")


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"from {low:.12g} to {high:.12g}"
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    return ", ".join(f"{word} {schema[k]:.12g}" for k, word in words.items() if k in schema)
