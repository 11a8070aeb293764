"""What can be set: the list, the schema and the template say what the models accept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from pydantic import ValidationError
from support.commands import Posetune

from posetune.api import BadInputError
from posetune.spec.fields import config_fields, sweep_fields, sweep_schema
from posetune.spec.loading import configure, load_sweep
from posetune.spec.registration import DEFAULT_TRAINABLE, SHIPPED_TRAINABLES, load_trainable
from posetune.spec.template import sweep_template
from posetune.testing.toy import Toy

TOY = "posetune.testing.toy:Toy"
BEHIND_A_MARK = re.compile(r"^( *)#(?=\S)", re.M)
"""A line of the template that holds a default."""


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def validator(name: str) -> Draft7Validator:
    schema = sweep_schema(name, load_trainable(name))
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


@pytest.mark.parametrize("name", SHIPPED_TRAINABLES)
def test_every_field_is_listed_with_its_default_and_its_help(name: str) -> None:
    model = load_trainable(name).config_model
    listed = config_fields(model)

    assert [(f.name, f.default) for f in listed] == list(leaves(model().model_dump(mode="json")))
    assert [f.name for f in [*sweep_fields(), *listed] if not f.help or not f.values] == []


def test_bounds_and_units_are_said_in_words() -> None:
    listed = {f.name: f for f in config_fields(load_trainable(DEFAULT_TRAINABLE).config_model)}
    listed |= {f.name: f for f in sweep_fields()}

    def said(name: str) -> tuple[str, str]:
        return listed[name].values, listed[name].unit

    assert said("image_size") == ("whole number from 32 to 256", "px")
    assert said("learning_rate") == ("number above 0, at most 0.1", "1")
    assert said("keypoint.map_px") == ("whole number from 4 to 64 or null", "px")
    assert said("flow.steps") == ("whole number from 1 to 1000000", "steps")
    assert said("renderer.sigma") == ("number above 0.01, at most 2", "crop")
    assert said("lifting.elevation") == ("learned, uniform or none", "")
    assert said("budget.wall_hours") == ("number above 0 or null", "hours")
    assert said("pruner.grace_epochs") == ("whole number at least 1", "epochs")


@pytest.mark.parametrize("name", SHIPPED_TRAINABLES)
def test_the_schema_has_the_bounds_of_the_model(name: str) -> None:
    """A value of `fixed` passes the schema if the model takes it beside the defaults."""
    model = load_trainable(name).config_model
    fixed = Draft7Validator(validator(name).schema["properties"]["fixed"])
    for field in config_fields(model):
        for value in (-1, 0, 1, 0.5, 10**9, "text", True, None, [1]):
            try:
                configure(model, {field.name: value}, {})
            except ValidationError as error:
                # Other checks than those of one field are the model's alone.
                its_own = [e for e in error.errors() if ".".join(map(str, e["loc"])) == field.name]
                refused = bool(its_own)
            else:
                refused = False
            valid = fixed.is_valid({field.name: value})
            assert not (valid and refused), (field.name, value)
            # pydantic turns other kinds into the field's, such as 0 into false.
            if field.unit and isinstance(value, int | float) and not isinstance(value, bool):
                assert valid == (not refused), (field.name, value)


def test_the_schema_takes_every_sweep_file_of_the_repository(repository: Path) -> None:
    files = sorted((repository / "search_spaces" / "selfpose").glob("*.yaml"))
    takes = validator(DEFAULT_TRAINABLE)

    assert len(files) > 5
    for file in files:
        faults = [error.message for error in takes.iter_errors(yaml.safe_load(file.read_text()))]
        assert faults == [], file


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("budget:", "budgets:"),
        ("trials: 12", "trials: 0"),
        ("trials: 12", "trials: many"),
        ("max_epochs: 9", "max_epochs: 9.5"),
        ("mode: min", "mode: least"),
        ("val/error_mm", "val/nothing"),
        ("x: {float", "y: {float"),
        ("{float: [0.03, 0.3], log: true}", "{float: [0.03, 7]}"),
        ("{float: [0.03, 0.3], log: true}", "{float: [0.03]}"),
        ("{float: [0.03, 0.3], log: true}", "{flot: [0.03, 0.3]}"),
        ("{float: [0.03, 0.3], log: true}", "{choice: []}"),
        ("depth: 4", "depth: 17"),
        ("depth: 4", "deepness: 4"),
        ("  cpu: 1", "  cpu: 0"),
    ],
)
def test_the_schema_refuses_what_a_sweep_refuses(tmp_path: Path, before: str, after: str) -> None:
    good = sweep_template(TOY, Toy)
    bad = good.replace(before, after)
    file = tmp_path / "sweep.yaml"
    file.write_text(bad)

    assert good != bad
    assert validator(TOY).is_valid(yaml.safe_load(good))
    assert not validator(TOY).is_valid(yaml.safe_load(bad))
    with pytest.raises(BadInputError):
        load_sweep(file)


@pytest.mark.parametrize("name", SHIPPED_TRAINABLES)
def test_the_template_holds_the_defaults(name: str, tmp_path: Path) -> None:
    """It is a good sweep file, and is the same one when all its defaults are given."""
    short, long = tmp_path / "short.yaml", tmp_path / "long.yaml"
    short.write_text(sweep_template(name, load_trainable(name)))
    long.write_text(BEHIND_A_MARK.sub(r"\1", short.read_text()))
    spec, trainable, _ = load_sweep(short)
    all_given, _, _ = load_sweep(long)
    model = trainable.config_model
    named = {*all_given.fixed, *all_given.search}

    assert named == {name for name, value in leaves(model().model_dump())}
    assert all_given.model_copy(update={"fixed": spec.fixed}) == spec
    assert configure(model, all_given.fixed, {}) == configure(model, spec.fixed, {}) == model()


def test_check_accepts_the_template_once_its_store_is_there(
    posetune: Posetune, tmp_path: Path
) -> None:
    importer = Toy.importers()["toy"]
    importer.run(None, tmp_path / "data/store", importer.options(), lambda *_, **__: None)
    printed = posetune("fields", TOY, "--template")
    (tmp_path / "my.yaml").write_text(printed.stdout)

    checked = posetune("check", "my.yaml")
    assert checked.returncode == 0, checked.stderr
    assert "my.yaml: good" in checked.stderr


def test_fields_are_found_by_a_word(posetune: Posetune) -> None:
    found = json.loads(posetune("fields", TOY, "--search", "DIVERGE", "--json").stdout)
    assert found["trainable"] == TOY
    assert found["sweep"] == []
    (field,) = found["configuration"]
    assert (field["name"], field["default"], field["required"]) == ("fail_above", 9.0, False)

    listed = posetune("fields", TOY, "--search", "shared stage").stdout
    assert "depth  default 4; whole number from 1 to 16" in listed
    assert "fail_above" not in listed
    nothing = posetune("fields", TOY, "--search", "zebra")
    assert (nothing.returncode, "no field of" in nothing.stderr) == (2, True)


def test_the_schema_is_printed_as_json(posetune: Posetune) -> None:
    assert json.loads(posetune("schema", TOY).stdout) == sweep_schema(TOY, Toy)
    unknown = posetune("schema", "os:path")
    assert (unknown.returncode, "is not registered" in unknown.stderr) == (2, True)


def test_the_page_of_fields_is_what_the_models_say(posetune: Posetune, repository: Path) -> None:
    """Mend it with `posetune fields --markdown`, below the page's own first lines."""
    page = (repository / "docs" / "fields.md").read_text()
    printed = posetune("fields", "--markdown").stdout

    assert page[page.index("## ") :].strip() == printed.strip()
