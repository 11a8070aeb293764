"""`posetune release`: let a sweep go on that was held."""

from __future__ import annotations

from posetune.cli.acting import act_on
from posetune.cli.options import AddressOption, HomeOption, JsonOption, SweepArgument
from posetune.cli.relay import relay
from posetune.study.acts.act import ReleaseSweep

__all__ = ["release"]


def release(
    name: SweepArgument,
    home: HomeOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a sweep go on that was held.

    posetune release first
    """
    if address is not None:
        raise relay("release", name, address=address, home=home, as_json=as_json)
    act_on(name, ReleaseSweep(), home=home, as_json=as_json, done="its trials go on")
