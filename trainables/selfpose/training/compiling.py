"""Networks compiled by torch, for CUDA and where a compiler is found."""

from __future__ import annotations

import platform
from collections.abc import Iterable

import torch
from torch import nn

from posetune.api import BadInputError

__all__ = ["check_compiler", "compile_networks", "finds_compiler"]


def check_compiler(device: torch.device) -> None:
    """Refuse to compile on some nodes of a sweep and not on others: their trials would differ.

    Raises:
        BadInputError: nothing compiles for this GPU.
    """
    if device.type == "cuda" and not finds_compiler(device):
        raise BadInputError(
            f"compile: true, but on {platform.node()} torch finds no C++ compiler or no Triton for "
            "its GPU; install g++ and Triton on every node, or set compile: false for all trials"
        )


def finds_compiler(device: torch.device) -> bool:
    """Return whether networks are compiled on this device: on CUDA, with Triton and g++.

    On a CPU nothing is gained: the quickstart's step took 123 ms compiled and 115 as it is.
    """
    if device.type != "cuda":
        return False
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return bool(has_triton())


def compile_networks(networks: Iterable[nn.Module]) -> None:
    """Have networks compiled when they are first used, for training and for validation.

    What was compiled lies in torch's cache, which all processes of a node share, and is not
    compiled again for the next trial of this size.

    Args:
        networks: changed in place.
    """
    torch.compiler.reset()  # or this process' earlier trials would fill dynamo's table
    # D's graph is differentiated twice (for D and for Phi), as is Omega's: no buffers given away.
    torch._functorch.config.donated_buffer = False
    for network in networks:  # one code object is behind all: each needs a table of its own
        network.compile(isolate_recompiles=True)
