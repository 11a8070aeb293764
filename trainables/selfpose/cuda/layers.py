"""Layers of convolutional networks in fewer operations, in bf16 on CUDA.

`fuse` is called once, before a training: it puts `FusedLayers` where a network has a sequence of
layers. Under autocast they compute the same in a form that costs less:
- a normalisation and the activation behind it are one operation (`kernels.normalisation`), and the
  bias before an instance normalisation, which takes it away again, is left out;
- bilinear doubling stays in half precision (`kernels.upsampling`);
- layers from or to an image of few channels have matrix products of their own
  (`kernels.convolution`); of others, outputs are filled up to the 8 that matrix units take.
Without autocast, as in validation, the layers run as they are written.

Shape letters: B batch, C channels, O channels out, S image side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["FusedLayers", "fuse", "run_fused"]

_CHANNELS = 8
_THIN = 4
"""Largest number of channels of an image that counts as thin."""


class FusedLayers(nn.Sequential):
    """A sequence of layers, with the same parameters under the same names."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        """Return what the layers make of maps (B, C, S, S)."""
        if torch.is_autocast_enabled("cuda"):
            return run_fused(self, input.to(torch.get_autocast_dtype("cuda")))
        return super().forward(input)  # type: ignore[no-untyped-call]


def fuse(network: nn.Module) -> None:
    """Put fused layers where a convolutional network has a sequence of layers.

    Args:
        network: changed in place; its parameters stay the same objects.
    """
    for name, child in network.named_children():
        if type(child) is nn.Sequential:
            setattr(network, name, FusedLayers(*child))
        else:
            fuse(child)


def run_fused(layers: nn.Sequential, x_bcss: Tensor) -> Tensor:
    """Return what the layers make of x, in the fused form."""
    left = list(layers)
    while left:
        layer = left.pop(0)
        if isinstance(layer, nn.Conv2d):
            x_bcss = _convolve(layer, x_bcss, with_bias=not (left and _by_instance(left[0])))
        elif _by_instance(layer) or _by_batch(layer):
            slope = _slope(left[0]) if left else None
            if slope is not None:
                left.pop(0)
            x_bcss = _normalise(layer, x_bcss, slope=1.0 if slope is None else slope)
        elif _doubles(layer):
            from selfpose.cuda.kernels.upsampling import double_side

            x_bcss = double_side(x_bcss)
        else:
            x_bcss = layer(x_bcss)
    return x_bcss


def _by_instance(layer: nn.Module) -> bool:
    return type(layer) is nn.InstanceNorm2d and not (layer.affine or layer.track_running_stats)


def _by_batch(layer: nn.Module) -> bool:
    return (
        type(layer) is nn.BatchNorm2d  # not one that several processes share
        and layer.training
        and layer.affine
        and layer.momentum is not None
        and layer.track_running_stats
    )


def _doubles(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.Upsample)
        and layer.scale_factor == 2
        and layer.mode == "bilinear"
        and not layer.align_corners
    )


def _slope(layer: nn.Module) -> float | None:
    """Return the slope left of zero of a rectifier, None for another layer."""
    if isinstance(layer, nn.ReLU):
        return 0.0
    return layer.negative_slope if isinstance(layer, nn.LeakyReLU) else None


def _normalise(layer: nn.Module, x_bcss: Tensor, *, slope: float) -> Tensor:
    from selfpose.cuda.kernels.normalisation import WholeBatch, normalise_and_activate

    if isinstance(layer, nn.InstanceNorm2d):
        return normalise_and_activate(x_bcss, slope=slope, eps=layer.eps)
    assert isinstance(layer, nn.BatchNorm2d)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.num_batches_tracked is not None
    assert layer.momentum is not None
    layer.num_batches_tracked.add_(1)
    return normalise_and_activate(
        x_bcss,
        slope=slope,
        eps=layer.eps,
        batch=WholeBatch(
            layer.weight, layer.bias, layer.running_mean, layer.running_var, layer.momentum
        ),
    )


def _convolve(layer: nn.Conv2d, x_bcss: Tensor, *, with_bias: bool) -> Tensor:
    """Convolve, on matrix units whatever the numbers of channels."""
    weight, bias_o = layer.weight, layer.bias if with_bias else None
    stride, padding = _same(layer.stride), _same(layer.padding)
    if min(layer.in_channels, layer.out_channels) <= _THIN:
        from selfpose.cuda.kernels.convolution import convolve_from_thin, convolve_to_thin

        if layer.in_channels <= _THIN:
            return convolve_from_thin(x_bcss, weight, bias_o, stride=stride, padding=padding)
        if stride == 1:
            y_bcss = convolve_to_thin(x_bcss, weight, padding=padding)
            return y_bcss if bias_o is None else y_bcss + bias_o[:, None, None]
    outputs, spare = layer.out_channels, -layer.out_channels % _CHANNELS
    if spare:
        weight = functional.pad(weight, (0, 0, 0, 0, 0, 0, 0, spare))
        bias_o = None if bias_o is None else functional.pad(bias_o, (0, spare))
    y_bcss = functional.conv2d(x_bcss, weight, bias_o, stride, padding)
    return y_bcss[:, :outputs] if spare else y_bcss


def _same(of_axes: object) -> int:
    assert isinstance(of_axes, tuple)  # torch makes two of one
    assert of_axes[0] == of_axes[1]
    return int(of_axes[0])
