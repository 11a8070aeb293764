"""`posetune edit`: give a sweep another budget, other bounds or other rungs."""

from __future__ import annotations

from posetune.cli.acting import act_on
from posetune.cli.options import HomeOption, JsonOption, SweepArgument, SweepFile
from posetune.study.acts.asking import edit_of

__all__ = ["edit"]


def edit(
    name: SweepArgument,
    file: SweepFile,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a sweep another file: its budget, bounds and rungs hold from now on.

    Trials outside of the new bounds are kept, and the sampler does not learn from them. From then
    on the sweep is continued with the new file.

      posetune edit first search_spaces/selfpose/quickstart.yaml
    """
    done = f"has the file {file} from now on (posetune logs {name} says what changed)"
    act_on(name, edit_of(file), home=home, as_json=as_json, done=done)
