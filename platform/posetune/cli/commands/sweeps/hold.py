"""`posetune hold`: let the trials of a sweep save and wait."""

from __future__ import annotations

from posetune.cli.acting import act_on
from posetune.cli.options import AddressOption, HomeOption, JsonOption, SweepArgument
from posetune.cli.relay import relay
from posetune.study.acts.act import HoldSweep

__all__ = ["hold"]


def hold(
    name: SweepArgument,
    home: HomeOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let every trial save within its epoch and wait; its slots are free for others.

    The driver stays, and `posetune release` lets the trials go on from where they are.

      posetune hold first
    """
    if address is not None:
        raise relay("hold", name, address=address, home=home, as_json=as_json)
    done = f"its trials save and wait; posetune release {name} lets them go on"
    act_on(name, HoldSweep(), home=home, as_json=as_json, done=done)
