"""`posetune approve`: a second person agrees to a promotion."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from posetune.cli.options import HomeOption, JsonOption
from posetune.cli.screen import console, print_json
from posetune.home import Home
from posetune.provenance import this_person

if TYPE_CHECKING:
    from posetune.promotion.approving.approve import Approval

__all__ = ["approve"]


def approve(
    version: Annotated[str, typer.Argument(help="The version, MODEL/VERSION.")],
    alias: Annotated[
        str | None,
        typer.Option(help="The alias, where it waits for several.", show_default=False),
    ] = None,
    look: Annotated[
        bool, typer.Option("--look", help="Show the evidence, and change nothing.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve a version that waits for a second person.

    An alias waits if the home's posetune.yaml says registry: {champion: {approve: 1}}. Whoever
    promoted the version cannot approve it. With the last person that is needed the alias moves, and
    all names stay on the version beside the gate's evidence.

      posetune approve selfpose/3 --look

      posetune approve selfpose/3
    """
    from posetune.promotion.approving.approve import approve as agree  # imports MLflow
    from posetune.promotion.approving.approve import evidence_of

    resolved = Home.resolve(home)
    if look:
        found = evidence_of(resolved, version, alias)
    else:
        found = agree(resolved, version, alias, by=this_person())
    if as_json:
        print_json({**asdict(found), "changed": not look})
        return
    _show(found, changed=not look)


def _show(found: Approval, *, changed: bool) -> None:
    name, decision = f"{found.model}/{found.version}", found.decision
    lines = [f"{name} was promoted to {found.alias} by {found.promoted_by}"]
    lines.append(f"gate: {decision.get('gate', 'not known')}: {decision.get('reason', '')}")
    for one in (decision.get("verdict") or {}).get("comparisons", []):
        gain = f"better by {one['gain']:.4g} ({one['low']:.4g} to {one['high']:.4g})"
        lines.append(f"  {one['over']} against {one['other']}: {gain}")
    if found.approved_by:
        lines.append(f"approved by {', '.join(found.approved_by)}")
    if changed and not found.left:
        replaced = f", instead of {found.replaced}" if found.replaced else ""
        lines.append(f"{found.model}@{found.alias} is version {found.version} now{replaced}")
    else:
        persons = f"{found.left} more person{'s' if found.left > 1 else ''}"
        lines.append(f"waits for {persons}: posetune approve {name}")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)
