"""The prior of 2D poses: principal components, then a normalising flow with exact likelihood.

`PosePrior` is what training uses: pre-trained once on the prior's normalised poses (`fit`), then
frozen, it says how unlikely a re-projected pose is. A frozen flow has its gradient written out
(`_FrozenLikelihood`).

At depth 8, batch 256, K 26, 1024 neurons, likelihood and gradient multiply 0.33 GFLOP, 4 ms at the
86 GFLOP/s at which one core of an AMD EPYC multiplies large matrices; 13 columns are too few to
reach that. Weights are 1.3 MB; the hidden values, 8.4 MB, are written and read in each pass: 34 MB,
1.3 ms at the 25 GB/s at which that core copies. `make bench` measures it.

Shape letters: N poses, B batch, J joints, K components kept.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = [
    "FlowTraining",
    "NormalisingFlow",
    "PosePrior",
    "PriorFit",
    "load_pose_prior",
    "principal_components",
    "product_in_parts",
    "save_pose_prior",
]

_WEIGHTS = "flow.safetensors"
_FACTS = "flow.json"
_PARTS = 16
_OUTLIER_SPREAD = 3.0
"""Standard deviation of an outlier's components, in those of the prior's."""


class _Coupling(nn.Module):
    """One affine coupling block behind a fixed random permutation."""

    permutation: Tensor
    inverse_permutation: Tensor

    def __init__(self, dimensions: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.kept = dimensions // 2
        self.changed = dimensions - self.kept
        last = nn.Linear(hidden, 2 * self.changed)
        nn.init.normal_(last.weight, std=1e-3)  # begin as the identity, up to the permutation
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(self.kept, hidden), nn.ReLU(), last)
        permutation = torch.randperm(dimensions, generator=generator)
        self.register_buffer("permutation", permutation)
        self.register_buffer("inverse_permutation", permutation.argsort())

    def forward(self, x_bk: Tensor) -> tuple[Tensor, Tensor]:
        kept, changed = torch.split(x_bk[:, self.permutation], [self.kept, self.changed], dim=1)
        log_scale, shift = self._scale_and_shift(kept)
        return torch.cat((kept, log_scale.exp() * changed + shift), dim=1), log_scale.sum(dim=1)

    def inverse(self, z_bk: Tensor) -> Tensor:
        kept, changed = torch.split(z_bk, [self.kept, self.changed], dim=1)
        log_scale, shift = self._scale_and_shift(kept)
        x_bk = torch.cat((kept, (changed - shift) * (-log_scale).exp()), dim=1)
        return x_bk[:, self.inverse_permutation]

    def layers(self) -> tuple[nn.Linear, nn.Linear]:
        """Return the two layers inside."""
        return cast(nn.Linear, self.net[0]), cast(nn.Linear, self.net[2])

    def _scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.net(kept).chunk(2, dim=1)
        return 2.0 * raw.tanh(), shift


class NormalisingFlow(nn.Module):
    """Affine coupling blocks: an invertible map to a standard normal."""

    def __init__(
        self, dimensions: int, depth: int, *, hidden: int = 1024, generator: torch.Generator
    ) -> None:
        """Build the blocks.

        Args:
            dimensions: K.
            depth: number of coupling blocks.
            hidden: neurons inside each block.
            generator: draws the fixed permutations.
        """
        super().__init__()
        self.dimensions, self.depth, self.hidden = dimensions, depth, hidden
        self.blocks = nn.ModuleList(_Coupling(dimensions, hidden, generator) for _ in range(depth))

    def forward(self, x_bk: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(x) and the log-determinant of its Jacobian.

        Args:
            x_bk: points (B, K), whitened principal components, no unit.

        Returns:
            f(x) (B, K), no unit, standard normal where x is likely; log |det df/dx| (B,), nats.
        """
        log_determinant_b = x_bk.new_zeros(len(x_bk))
        for block in self.blocks:
            x_bk, block_log_determinant_b = block(x_bk)
            log_determinant_b = log_determinant_b + block_log_determinant_b
        return x_bk, log_determinant_b

    def inverse(self, z_bk: Tensor) -> Tensor:
        """Return the points that f maps to given ones.

        Args:
            z_bk: points (B, K), no unit, in the space of the standard normal.

        Returns:
            The points x (B, K) with f(x) = z, whitened principal components, no unit.
        """
        for block in reversed(self.blocks):
            z_bk = cast(_Coupling, block).inverse(z_bk)
        return z_bk

    def negative_log_likelihood(self, x_bk: Tensor) -> Tensor:
        """Return .5 |f(x)|^2 - log |det df/dx| of each point.

        Args:
            x_bk: points (B, K), whitened principal components, no unit.

        Returns:
            The negative log-likelihood (B,), nats, without the constant of the normal distribution.
        """
        if not any(parameter.requires_grad for parameter in self.parameters()):
            blocks = tuple(cast(_Coupling, block) for block in self.blocks)
            x_bk = x_bk.to(blocks[0].layers()[0].weight.dtype)
            with torch.autocast(x_bk.device.type, enabled=False):
                return _FrozenLikelihood.apply(x_bk, blocks)  # type: ignore[no-untyped-call]
        z_bk, log_determinant_b = self(x_bk)
        return 0.5 * z_bk.square().sum(dim=1) - log_determinant_b


class _FrozenLikelihood(torch.autograd.Function):
    """`NormalisingFlow.negative_log_likelihood` with a gradient for the points alone.

    Both passes compute in the dtype of the weights, under autocast too.

    A point is a column: so every part of it is contiguous, and the products with the narrow
    matrices are half as fast again. Letters besides: H neurons, C changed dimensions.
    """

    @staticmethod
    def forward(ctx: Any, x_bk: Tensor, blocks: tuple[_Coupling, ...]) -> Tensor:
        x_kb, ones_1b = x_bk.T.contiguous(), x_bk.new_ones(1, len(x_bk))
        log_determinant_b, saved = x_bk.new_zeros(len(x_bk)), []
        for block in blocks:
            first, last = block.layers()
            x_kb = x_kb[block.permutation]
            kept, changed_cb = x_kb[: block.kept], x_kb[block.kept :]
            weight = torch.cat((first.weight, first.bias.unsqueeze(1)), dim=1)
            hidden_hb = (weight @ torch.cat((kept, ones_1b))).relu_()
            raw, shift = torch.addmm(last.bias.unsqueeze(1), last.weight, hidden_hb).chunk(2)
            tanh_cb = raw.tanh()
            scale_cb = (2.0 * tanh_cb).exp_()
            scaled_cb = changed_cb * scale_cb
            torch.add(scaled_cb, shift, out=changed_cb)
            log_determinant_b += 2.0 * tanh_cb.sum(dim=0)
            saved += [hidden_hb, tanh_cb, scale_cb, scaled_cb]
        ctx.save_for_backward(x_kb, *saved)
        ctx.blocks = blocks
        return 0.5 * x_kb.square().sum(dim=0) - log_determinant_b

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_b: Tensor) -> tuple[Tensor, None]:
        with torch.autocast(grad_b.device.type, enabled=False):
            return _FrozenLikelihood._gradient(ctx, grad_b).T, None

    @staticmethod
    def _gradient(ctx: Any, grad_b: Tensor) -> Tensor:
        z_kb, *saved = ctx.saved_tensors
        grad_kb, inside_hb = grad_b * z_kb, torch.empty_like(saved[0])
        for i, block in reversed(list(enumerate(ctx.blocks))):
            hidden_hb, tanh_cb, scale_cb, scaled_cb = saved[4 * i : 4 * i + 4]
            first, last = block.layers()
            shift_cb = grad_kb[block.kept :]
            raw_cb = (shift_cb * scaled_cb).sub_(grad_b)
            raw_cb -= raw_cb * tanh_cb * tanh_cb
            torch.mm(last.weight.T, torch.cat((raw_cb.mul_(2.0), shift_cb)), out=inside_hb)
            torch.ops.aten.threshold_backward.grad_input(
                inside_hb, hidden_hb, 0.0, grad_input=inside_hb
            )
            kept = _add_product(grad_kb[: block.kept], first.weight.T, inside_hb)
            grad_kb = torch.cat((kept, shift_cb * scale_cb))[block.inverse_permutation]
        return grad_kb


def _add_product(sum_cb: Tensor, narrow_ch: Tensor, hidden_hb: Tensor) -> Tensor:
    """Add a product; on CUDA its long sum is split, else one multiprocessor would do it alone."""
    if not hidden_hb.is_cuda or len(hidden_hb) % _PARTS:
        return torch.addmm(sum_cb, narrow_ch, hidden_hb)
    return sum_cb + product_in_parts(narrow_ch, hidden_hb)


def product_in_parts(narrow_ch: Tensor, hidden_hb: Tensor) -> Tensor:
    """Multiply two matrices as the sum of 16 products.

    Args:
        narrow_ch: the left matrix (C, H), H a multiple of 16, no unit.
        hidden_hb: the right matrix (H, B), no unit.

    Returns:
        The product (C, B), no unit; rounded otherwise than by one product.
    """
    count = len(hidden_hb) // _PARTS
    of_parts_pch = narrow_ch.reshape(-1, _PARTS, count).transpose(0, 1)
    return (of_parts_pch @ hidden_hb.view(_PARTS, count, -1)).sum(dim=0)


class PosePrior(nn.Module):
    """Principal components, whitened, and the flow on them."""

    mean_d: Tensor
    whitening_dk: Tensor

    def __init__(self, mean_d: Tensor, whitening_dk: Tensor, flow: NormalisingFlow) -> None:
        """Join the parts.

        Args:
            mean_d: mean of the flattened normalised poses (2J,).
            whitening_dk: from centred poses to components of unit variance (2J, K).
            flow: on K dimensions.
        """
        super().__init__()
        self.register_buffer("mean_d", mean_d)
        self.register_buffer("whitening_dk", whitening_dk)
        self.flow = flow

    def components(self, normalised_bj2: Tensor) -> Tensor:
        """Return the whitened principal components (B, K) of normalised poses (B, J, 2)."""
        return (normalised_bj2.flatten(1) - self.mean_d) @ self.whitening_dk

    def forward(self, normalised_bj2: Tensor, *, outlier_share: float = 0.0) -> Tensor:
        """Return the negative log-likelihood (B,), nats, of normalised poses (B, J, 2).

        Far from its data the flow's likelihood falls so steeply that a few odd poses outweigh
        all others. With `outlier_share`, the prior is a mixture in which that share of poses
        comes from a broad Gaussian on the components.
        """
        components_bk = self.components(normalised_bj2)
        likely_b = self.flow.negative_log_likelihood(components_bk)
        if outlier_share == 0.0:
            return likely_b
        count = components_bk.shape[1]
        broad_b = (components_bk / _OUTLIER_SPREAD).square().sum(dim=1) / 2
        broad_b = broad_b + count * math.log(_OUTLIER_SPREAD)
        return -torch.logaddexp(
            math.log1p(-outlier_share) - likely_b, math.log(outlier_share) - broad_b
        )


@dataclass(frozen=True)
class FlowTraining:
    """How the prior is trained; the defaults are ElePose's."""

    depth: int = 8
    components: int = 26
    hidden: int = 1024
    steps: int = 10_000
    batch_size: int = 256
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    noise: float = 0.0
    """Standard deviation of noise on the whitened components."""


def principal_components(normalised_nj2: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the mean (2J,) and whitening (2J, K) of normalised poses (N, J, 2).

    Directions without variance (the root's) are never among the K = `count` kept, unless there
    are no others.
    """
    flat_nd = normalised_nj2.flatten(1).double()
    mean_d = flat_nd.mean(dim=0)
    values_d, vectors_dd = torch.linalg.eigh((flat_nd - mean_d).T @ (flat_nd - mean_d))
    order = values_d.argsort(descending=True)[:count]
    spread_k = (values_d[order] / len(flat_nd)).clamp(min=1e-10).sqrt()
    return mean_d.float(), (vectors_dd[:, order] / spread_k).float()


class PriorFit:
    """Fits components and flow to poses by maximum likelihood: by Adam, a step at a time."""

    def __init__(self, normalised_nj2: Tensor, training: FlowTraining, *, seed: int) -> None:
        """Find the components, and build the flow.

        Args:
            normalised_nj2: the prior's normalised poses (N, J, 2).
            training: depth, length and rate.
            seed: of the permutations, the noise and the order of the data; the first weights are
                drawn from torch's global generator.
        """
        self.training = training
        self.generator = torch.Generator().manual_seed(seed)
        mean_d, whitening_dk = principal_components(normalised_nj2, training.components)
        self.flow = NormalisingFlow(
            whitening_dk.shape[1],
            training.depth,
            hidden=training.hidden,
            generator=self.generator,
        )
        self.prior = PosePrior(mean_d, whitening_dk, self.flow).to(normalised_nj2.device)
        self.points_nk = self.prior.components(normalised_nj2)
        self.optimiser = torch.optim.Adam(
            self.flow.parameters(),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            fused=True,
        )
        self._last_from = int(0.9 * training.steps)
        self.last_t = torch.zeros(training.steps - self._last_from, device=normalised_nj2.device)
        """Mean negative log-likelihood of each of the last tenth of the steps, nats."""

    def step(self, number: int) -> Tensor:
        """Take the step of a number, from 0; return its negative log-likelihood, (), nats."""
        training, points_nk = self.training, self.points_nk
        done = number / training.steps
        for group in self.optimiser.param_groups:
            group["lr"] = training.learning_rate * (1.0 + math.cos(math.pi * done)) / 2.0
        pick = torch.randint(len(points_nk), (training.batch_size,), generator=self.generator)
        batch_bk = points_nk[pick.to(points_nk.device)]
        noise_bk = torch.randn(batch_bk.shape, generator=self.generator).to(batch_bk.device)
        loss = self.flow.negative_log_likelihood(batch_bk + training.noise * noise_bk).mean()
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.optimiser.step()
        if number >= self._last_from:
            self.last_t[number - self._last_from] = loss.detach()
        return loss.detach()

    def finish(self) -> tuple[PosePrior, float]:
        """Return the fitted prior, frozen and in evaluation mode, and how well it fits.

        That is the mean negative log-likelihood over the last tenth of the steps, nats.
        """
        return self.prior.requires_grad_(False).eval(), float(self.last_t.mean())


def save_pose_prior(prior: PosePrior, folder: Path, *, loss: float) -> None:
    """Write a prior as safetensors and JSON into `folder`.

    Args:
        prior: what `PriorFit.finish` returned.
        folder: an existing folder.
        loss: its final negative log-likelihood, nats.
    """
    save_file({k: v.contiguous() for k, v in prior.state_dict().items()}, folder / _WEIGHTS)
    flow = prior.flow
    facts = _Facts(flow.dimensions, flow.depth, flow.hidden, loss_nats=loss)
    (folder / _FACTS).write_text(json.dumps(asdict(facts), indent=1), encoding="utf-8")


def load_pose_prior(folder: Path) -> PosePrior:
    """Return the frozen prior that `save_pose_prior` wrote into `folder`."""
    facts = _Facts(**json.loads((folder / _FACTS).read_text(encoding="utf-8")))
    weights = load_file(folder / _WEIGHTS)
    flow = NormalisingFlow(
        facts.dimensions, facts.depth, hidden=facts.hidden, generator=torch.Generator()
    )
    prior = PosePrior(weights["mean_d"], weights["whitening_dk"], flow)
    prior.load_state_dict(weights)
    return prior.requires_grad_(False).eval()


@dataclass(frozen=True)
class _Facts:
    dimensions: int
    depth: int
    hidden: int
    loss_nats: float
