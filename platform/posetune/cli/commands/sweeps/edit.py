"""`posetune edit`: give a sweep another budget, other bounds or other rungs."""

from __future__ import annotations

from posetune.cli.acting import act_on
from posetune.cli.options import (
    AddressOption,
    HomeOption,
    JsonOption,
    SweepArgument,
    SweepFile,
)
from posetune.cli.relay import relay
from posetune.home import Home
from posetune.study.acts.asking import edit_of

__all__ = ["edit"]


def edit(
    name: SweepArgument,
    file: SweepFile,
    home: HomeOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a sweep another file: its budget, bounds and rungs hold from now on.

    Trials outside of the new bounds are kept, and the sampler does not learn from them. From then
    on the sweep is continued with the new file.

      posetune edit first search_spaces/selfpose/quickstart.yaml
    """
    act = edit_of(file, Home.resolve(home).folder)
    if address is not None:
        raise relay(
            *("edit", name, "sweep.yaml"),
            address=address,
            home=home,
            as_json=as_json,
            source=act.source,
            trainable=act.spec["trainable"],
        )
    done = f"has the file {file} from now on (posetune logs {name} says what changed)"
    given_home = "" if home is None else f" --home {home}"
    continued_by = f"posetune sweep {file} --name {name}{given_home}"
    act_on(name, act, home=home, as_json=as_json, done=done, continued_by=continued_by)
