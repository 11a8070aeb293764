from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selfpose.method.flow import (
    FlowTraining,
    NormalisingFlow,
    PosePrior,
    PriorFit,
    load_pose_prior,
    principal_components,
    product_in_parts,
    save_pose_prior,
)


@pytest.mark.slow
def test_a_product_in_parts_is_the_product() -> None:
    narrow, hidden = torch.randn(3, 32).double(), torch.randn(32, 5).double()

    torch.testing.assert_close(product_in_parts(narrow, hidden), narrow @ hidden)


def some_flow(dimensions: int, depth: int = 3) -> NormalisingFlow:
    flow = NormalisingFlow(
        dimensions, depth, hidden=16, generator=torch.Generator().manual_seed(1)
    ).double()
    with torch.no_grad():  # far from the identity it begins as
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn(
                parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
            )
    return flow


def some_poses(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, 34, generator=generator)
    poses = 0.02 * torch.randn(count, 8, generator=generator) @ mixing
    return (poses + 0.001 * torch.randn(count, 34, generator=generator)).reshape(count, 17, 2)


@pytest.mark.parametrize("dimensions", [2, 7, 26])
def test_the_inverse_undoes_the_flow(dimensions: int) -> None:
    flow = some_flow(dimensions)
    x = torch.randn(5, dimensions, dtype=torch.float64)

    torch.testing.assert_close(flow.inverse(flow(x)[0]), x)


@pytest.mark.parametrize("dimensions", [2, 7])
def test_the_log_determinant_is_that_of_autograds_jacobian(dimensions: int) -> None:
    flow = some_flow(dimensions)
    x = torch.randn(3, dimensions, dtype=torch.float64)
    _, log_determinant = flow(x)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda one: flow(one[None])[0][0], x[i])

        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_determinant[i])


@pytest.mark.parametrize("dimensions", [2, 7, 26])
def test_a_frozen_flow_has_the_likelihood_and_gradient_of_autograd(dimensions: int) -> None:
    flow = some_flow(dimensions)
    points = torch.randn(5, dimensions, dtype=torch.float64)
    results = []
    for frozen in (False, True):
        flow.requires_grad_(not frozen)
        x = points.clone().requires_grad_()
        likelihood = flow.negative_log_likelihood(x)
        (likelihood * torch.arange(5)).sum().backward()
        results.append((likelihood.detach(), x.grad))

    torch.testing.assert_close(results[0], results[1])


def test_a_frozen_flow_computes_in_its_own_dtype_under_autocast() -> None:
    flow = some_flow(7).float().requires_grad_(False)
    points = torch.randn(5, 7).bfloat16()
    results = []
    for on in (False, True):
        x = (points if on else points.float()).clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            likelihood = flow.negative_log_likelihood(x)
            likelihood.sum().backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        results.append((likelihood.detach(), x.grad.bfloat16()))

    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


def test_the_components_of_the_fitted_poses_are_white() -> None:
    poses = some_poses(500)
    mean, whitening = principal_components(poses, 6)
    flow = NormalisingFlow(6, 1, hidden=4, generator=torch.Generator())
    components = PosePrior(mean, whitening, flow).components(poses)

    torch.testing.assert_close(components.mean(0), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(components.T @ components / 500, torch.eye(6), atol=1e-2, rtol=0)


def fit(poses: torch.Tensor, training: FlowTraining) -> tuple[PosePrior, float]:
    fitting = PriorFit(poses, training, seed=0)
    for number in range(training.steps):
        fitting.step(number)
    return fitting.finish()


@pytest.mark.slow
def test_fitting_makes_the_poses_likelier_than_others() -> None:
    poses = some_poses(400)
    training = FlowTraining(
        depth=2, components=8, hidden=32, steps=150, batch_size=64, learning_rate=3e-3
    )
    prior, loss = fit(poses, training)

    assert prior(poses).mean() < prior(1.5 * poses).mean() - 1
    assert loss < 4.5  # a standard normal of 8 dimensions scores 4
    assert not any(parameter.requires_grad for parameter in prior.parameters())


def test_a_prior_read_from_its_folder_scores_the_same(tmp_path: Path) -> None:
    poses = some_poses(100)
    prior, loss = fit(poses, FlowTraining(depth=2, components=8, hidden=8, steps=3))
    save_pose_prior(prior, tmp_path, loss=loss)

    assert torch.equal(load_pose_prior(tmp_path)(poses), prior(poses))
