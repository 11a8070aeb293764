"""Tells a driver how many trials it may have at work while other sweeps want the same cluster.

A sweep that is driven alone is asked nothing and costs nothing: whether it is alone, the thread
that renews its lease finds out. Otherwise `look` writes down what the sweep wants, where that has
changed, and reads what the others do; the caller gives the pace. Between two looks the answers are
comparisons of two numbers.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from posetune.spec.sweep import ClusterRules
from posetune.study.driving.sweep import SweepRun
from posetune.study.sharing.demands import make_table, publish, read_demands
from posetune.study.sharing.entitlements import Demand, entitlements

__all__ = ["ClusterTurn"]


class ClusterTurn:
    """A sweep's part in sharing one cluster."""

    def __init__(
        self, run: SweepRun, cluster: str, rules: Callable[[], ClusterRules] | None = None
    ) -> None:
        """Take part in sharing a cluster.

        Args:
            run: the sweep.
            cluster: tells the cluster from others; only sweeps on the same one share it.
            rules: gives priority and share as they are now (default: as the sweep was opened).
        """
        # Who asks for GPUs and who does not take nothing from each other.
        kind = "gpu" if run.spec.resources.gpu else "cpu"
        self._run, self._cluster = run, f"{cluster}/{kind}"
        self._rules = rules or (lambda: run.cluster_rules)
        self.entitled: int | None = None
        """How many trials it may have at work; None where nobody else wants the cluster."""
        self._next = ""
        """The sweep that the next slot goes to; empty where none waits."""
        self._published: Demand | None = None
        """What the sweep wants, as other drivers can read it."""

    @property
    def may_start(self) -> bool:
        """Whether another trial of the sweep may take a slot."""
        return self.entitled is None or self._run.under_way < self.entitled

    @property
    def gives_back(self) -> bool:
        """Whether the next trial that ends an epoch gives its slot back."""
        return self.entitled is not None and self._run.under_way > self.entitled

    @property
    def waits_for(self) -> str:
        """What a sweep with trials left waits for that may start none now; empty otherwise."""
        if self.may_start or self._run.under_way or not self._run.may_start:
            return ""
        return "other sweeps are served first, by priority and share (posetune queue)"

    @property
    def why(self) -> str:
        """Why a slot goes back."""
        other = f"sweep {self._next}" if self._next else "another sweep"
        return f"its slot goes to {other}, by priority and share (posetune queue)"

    def look(self, *, fits: int, room: int) -> None:
        """Say what the sweep wants, and take in what the others do.

        Args:
            fits: how many of its trials the whole cluster holds when it is empty.
            room: how many it may have at a time, by its nodes and its own limit.
        """
        run = self._run
        if not run.lease.has_company:
            self.entitled, self._next = None, ""
            return
        rules = self._rules()
        demand = Demand(
            run.name,
            fits=fits,
            holds=run.placed,
            wants=max(min(run.wants, room), run.under_way),
            priority=rules.priority,
            share=rules.share,
        )
        try:
            demands = self._exchange(demand)
        except OperationalError:
            return  # the database is away; whoever commits next waits for it
        entitled = entitlements(demands)
        others = [d for d in demands if d.sweep != run.name]
        # Where no node suits it, nodes come once a trial asks for one.
        self.entitled = entitled[run.name] if others and fits and room else None
        waiting = [d.sweep for d in others if d.holds < entitled[d.sweep]]
        self._next = waiting[0] if waiting else ""

    def _exchange(self, demand: Demand) -> list[Demand]:
        """Write down what the sweep wants of the cluster, and return what all sweeps want of it.

        Raises:
            OperationalError: the database is busy or away; it is not waited for.
        """
        run, cluster = self._run, self._cluster
        if self._published != demand:
            if self._published is None:
                make_table(run.database)

            def write(connection: Connection) -> None:
                run.lease.check(connection)
                holder = run.lease.holder
                publish(connection, run.id, demand, holder=holder, cluster=cluster)

            run.database.write(write, patience_s=0.0)
            self._published = demand
        with run.database.reading() as connection:
            found = read_demands(connection)
        others = [one.demand for one in found if one.cluster == cluster]
        return [demand if one.sweep == run.name else one for one in others]
