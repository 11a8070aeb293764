"""One training in several processes: each has a share of every batch, all take the same step.

All processes draw the same random numbers, for the whole batch, and keep their share; gradients
are averaged and batch statistics taken over all shares. So what several learn is what one learns,
to rounding. For one process, everything here does nothing.

The processes stand in the default group of torch.distributed.
Shape letters: B whole batch, C channels, S image side in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["ALONE", "Team", "share_statistics"]


@dataclass(frozen=True)
class Team:
    """The processes that train together, as one of them sees them."""

    rank: int = 0
    size: int = 1

    def share(self, whole: Tensor) -> Tensor:
        """Return this process' share of the rows."""
        return whole if self.size == 1 else whole.chunk(self.size)[self.rank]

    def gather(self, own: Tensor) -> Tensor:
        """Return the rows of all processes; gradients find their way back to each."""
        return own if self.size == 1 else _Gather.apply(own, self)  # type: ignore[no-untyped-call]

    def total(self, own: Tensor) -> Tensor:
        """Return the sum over all processes; gradients find their way back to each."""
        return own if self.size == 1 else _Total.apply(own)  # type: ignore[no-untyped-call]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Put the mean over all processes into tensors, in one message."""
        if self.size == 1:
            return
        own = list(tensors)
        message = torch.cat([t.flatten() for t in own])
        dist.all_reduce(message)
        message /= self.size
        for tensor, mean in zip(own, torch.split(message, [t.numel() for t in own]), strict=True):
            tensor.copy_(mean.view_as(tensor))


ALONE = Team()


def share_statistics(network: nn.Module, team: Team) -> None:
    """Let batch normalisation in a network see the whole batch, not the share of a process."""
    if team.size == 1:
        return
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(network, name, _SharedBatchNorm(child, team))
        else:
            share_statistics(child, team)


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over all processes; the same parameters under the same names."""

    def __init__(self, alone: nn.BatchNorm2d, team: Team) -> None:
        super().__init__(alone.num_features, eps=alone.eps, momentum=alone.momentum)
        self.load_state_dict(alone.state_dict())
        self._team = team

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        if not self.training:
            return super().forward(input)
        x_bcss = input.float()
        count = self._team.size * x_bcss.numel() // x_bcss.shape[1]
        mean_c = self._team.total(x_bcss.sum(dim=(0, 2, 3))) / count
        centred_bcss = x_bcss - mean_c[:, None, None]
        variance_c = self._team.total(centred_bcss.square().sum(dim=(0, 2, 3))) / count
        self._remember(mean_c.detach(), variance_c.detach() * count / (count - 1))
        scale_c = self.weight * (variance_c + self.eps).rsqrt()
        return (centred_bcss * scale_c[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    def _remember(self, mean_c: Tensor, variance_c: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean_c, self.momentum)
        self.running_var.lerp_(variance_c, self.momentum)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, team: Team) -> Tensor:
        ctx.team = team
        shares = [torch.empty_like(own) for _ in range(team.size)]
        dist.all_gather(shares, own.contiguous())
        return torch.cat(shares)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        whole = gradients[0].contiguous()
        dist.all_reduce(whole)
        return ctx.team.share(whole), None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return (total,)
