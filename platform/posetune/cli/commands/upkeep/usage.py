"""`posetune usage`: who has used how much."""

from __future__ import annotations

from typing import Annotated

import typer

from posetune.cli.acting import study_of
from posetune.cli.options import AddressOption, HomeOption, JsonOption
from posetune.cli.relay import relay
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.report.usage import By, group, moment, total, usage_json, usage_table
from posetune.spec.home_file import read_home_file
from posetune.study.usage import read_usage

__all__ = ["usage"]


def usage(
    since: Annotated[
        str, typer.Option(help="Count from then on: 30d, 12h, 90m, or a date like 2026-11-01.")
    ] = "30d",
    by: Annotated[By, typer.Option(help="What the numbers are put together by.")] = "owner",
    home: HomeOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say who has used how much: trials, epochs, hours and cost.

    Slot-hours are those for which attempts held their place; the cost follows from
    cost_per_gpu_hour in the home's posetune.yaml. A sweep with several tags counts under each.

      posetune usage --since 30d --by owner

      posetune usage --since 2026-11-01 --by tag --json
    """
    begin = moment(since)
    if address is not None:
        words = ["--since", since, "--by", by]
        raise relay("usage", *words, address=address, home=home, as_json=as_json)
    file = read_home_file(Home.resolve(home).folder)
    found = read_usage(study_of(home), since=begin)
    groups, whole = group(found, by, file), total("in all", found, file)
    if as_json:
        about = {"since": begin, "by": by, "currency": file.currency}
        print_json({**about, **usage_json(groups, whole)})
        return
    console.print(usage_table(groups, whole, by=by, currency=file.currency))
