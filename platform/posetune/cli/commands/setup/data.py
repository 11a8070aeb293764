"""`posetune data`: make stores and look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.table import Table

from posetune.api import BadInputError, Importer
from posetune.cli.options import JsonOption
from posetune.cli.screen import console, interruptible, print_json, progress_bar
from posetune.spec.registration import DEFAULT_TRAINABLE, load_trainable
from posetune.storage import open_folder

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

TrainableOption = Annotated[
    str,
    typer.Option(
        "--trainable", help="The trainable that reads the data's format (package.module:Class)."
    ),
]


@app.command("import")
def import_(
    out: Annotated[Path, typer.Option("--out", help="Folder of the store to make.")],
    format_: Annotated[
        str, typer.Option("--format", help="Format of the data, for example mocap17.")
    ],
    file: Annotated[
        Path | None,
        typer.Argument(help="The file or folder with the data.", show_default=False),
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the images, in pixels.")] = None,
    views: Annotated[int | None, typer.Option(help="Number of cameras per frame.")] = None,
    level: Annotated[
        str | None, typer.Option(help="How drawn images look: plain, clothes, rooms or occluders.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Highest number of frames in each split.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything that is drawn at random.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Layout of the joints, for example keypointgan17.")
    ] = None,
    val: Annotated[
        str | None, typer.Option(help="Subject (or parts of handdb) to validate on, or none.")
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option(help="Import the frames that published results use (sampled), or all."),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            help="Scale of 3D poses: each body's own height (real), or one for all (universal)."
        ),
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(help="Masks of drawn people: exact, or estimated as in photographs."),
    ] = None,
    background: Annotated[
        str | None, typer.Option(help="Whether to keep the background, or remove it by the mask.")
    ] = None,
    train: Annotated[
        str | None, typer.Option(help="Parts of handdb that give images to train on.")
    ] = None,
    prior: Annotated[
        str | None, typer.Option(help="Parts of handdb that give 2D poses for the prior.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Parts of handdb to test on.")] = None,
    encoding: Annotated[
        str | None, typer.Option(help="How the store keeps pictures: raw or jpeg.")
    ] = None,
    bone_ratios: Annotated[
        str | None,
        typer.Option(
            help="Lengths of the limbs over their mean, with commas between, or `usual` for the "
            "layout's own (default: measured on the prior's 2D poses)."
        ),
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Unit of 3D joints: m, cm, mm or inch.")] = None,
    exclude_drift: Annotated[
        bool | None,
        typer.Option(
            "--exclude-drift",
            help="Leave out the sequences of human36m's S9 whose poses are shifted.",
        ),
    ] = None,
    whole_people: Annotated[
        bool | None,
        typer.Option(
            "--whole-people",
            help="Leave out training frames of mpi_inf_3dhp with a joint outside the picture.",
        ),
    ] = None,
    strict: Annotated[
        bool | None,
        typer.Option(help="Refuse data with bad items, instead of leaving the items out."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Number of processes (default: one per core).")
    ] = None,
    trainable: TrainableOption = DEFAULT_TRAINABLE,
    as_json: JsonOption = False,
) -> None:
    """Make a store from data as you have it.

    The same command again continues where it stopped; a finished store is left as it is. Bad
    items are left out, counted and named in the store (--strict: refused).

      posetune data import --format procedural --out data/procedural

      posetune data import mocap17.h5 --format mocap17 --image-size 64 --views 1 --out data/mocap
    """
    found = load_trainable(trainable)
    importer = _importer(found.importers(), format_, file)
    given = {
        "image_size": image_size,
        "views": views,
        "level": level,
        "limit": limit,
        "seed": seed,
        "layout": layout,
        "val": val,
        "frames": frames,
        "scale": scale,
        "masks": masks,
        "background": background,
        "train": train,
        "prior": prior,
        "test": test,
        "encoding": encoding,
        "bone_ratios": bone_ratios,
        "unit": unit,
        "exclude_drift": exclude_drift,
        "whole_people": whole_people,
        "strict": strict,
        "workers": workers,
    }
    options = _options(importer, format_, {k: v for k, v in given.items() if v is not None})
    with interruptible(), progress_bar(f"import {format_}", quiet=as_json) as progress:
        importer.run(file, out, options, progress)
    summary = found.describe_store(out)
    if as_json:
        print_json(
            {
                "store": str(out),
                "digest": summary.digest,
                "rows": dict(summary.rows),
                "quality": dict(summary.quality),
            }
        )
        return
    rows = ", ".join(f"{split} {count}" for split, count in summary.rows.items())
    console.print(f"store {out}: {rows}")
    left_out = summary.quality.get("left out", "nothing")
    if left_out != "nothing":
        console.print(f"left out: {left_out}", markup=False)
    console.print(f"Next: posetune data info {out}")


@app.command("info")
def info(
    store: Annotated[str, typer.Argument(help="Address of a store: a folder or s3://...")],
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet",
            help="File for the contact sheet (default: in the store, or here if the store is "
            "on S3).",
        ),
    ] = None,
    trainable: TrainableOption = DEFAULT_TRAINABLE,
    as_json: JsonOption = False,
) -> None:
    """Print what is in a store, and save a contact sheet with the joints over the images.

    posetune data info data/procedural
    """
    found = load_trainable(trainable)
    folder = open_folder(store)
    summary = found.describe_store(folder)
    sheet = sheet or (Path() if "://" in store else folder) / "contact_sheet.png"
    found.draw_store(folder, sheet)
    if as_json:
        print_json(
            {
                "digest": summary.digest,
                "rows": dict(summary.rows),
                "facts": dict(summary.facts),
                "contact_sheet": str(sheet),
            }
        )
        return
    table = Table(show_header=False, title=store, title_justify="left")
    for split, count in summary.rows.items():
        table.add_row(split, f"{count} rows")
    for name, value in summary.facts.items():
        table.add_row(name, value)
    table.add_row("digest", summary.digest)
    table.add_row("contact sheet", str(sheet))
    console.print(table)


def _importer(importers: Any, name: str, file: Path | None) -> Importer:
    importer: Importer | None = importers.get(name)
    if importer is None:
        known = "; ".join(f"{n}: {i.summary}" for n, i in importers.items())
        raise BadInputError(f"--format {name}: is not a known format; known are {known}")
    if importer.needs_file and file is None:
        raise BadInputError(
            f"--format {name}: needs a file; give it: posetune data import FILE ..."
        )
    if file is not None and not importer.needs_file:
        raise BadInputError(f"--format {name}: takes no file, got {file}; leave it out")
    return importer


def _options(importer: Importer, name: str, given: dict[str, Any]) -> Any:

    try:
        return importer.options(**given)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        option = "--" + str(fault["loc"][0]).replace("_", "-") if fault["loc"] else "options"
        if fault["type"] == "extra_forbidden":
            raise BadInputError(f"{option}: --format {name} has no such option") from error
        message = fault["msg"].removeprefix("Value error, ")
        raise BadInputError(f"{option}: {message}, got {fault['input']!r}") from error
