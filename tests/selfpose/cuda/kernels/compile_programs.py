"""Compile every GPU program for one kind of GPU, which need not be there: `... 90` for Hopper.

A script, since Triton decides in a process once whether it compiles or interprets.
"""

from __future__ import annotations

import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from selfpose.cuda.kernels.programs import convolution, drawing, normalisation, upsampling

HALF = {"x_ptr", "y_ptr", "grad_ptr", "into_ptr", "thin_ptr", "wide_ptr", "weight_ptr"}
WHOLE = {"limbs_ptr": "*i32", "present_ptr": "*i32", "nearest_ptr": "*u8"}
FLOATS = {"slope", "eps", "momentum", "sharpness", "step"}

TILE: dict[str, Any] = {"ROWS": 64, "BLOCK": 64, "AT_ONCE": 32, "COLUMNS": 16}
STEM: dict[str, Any] = {"CHANNELS": 1, "ROWS": 7, "COLUMNS": 7, "STRIDE": 2, "PADDING": 3}
STEM |= {"TAPS": 64, "PIXELS": 64, "BLOCK": 32, "BIASED": True}
STEM |= {"ACROSS": 7, "FILLED": 16, "VALUES": 1024}
IMAGE: dict[str, Any] = {"SIDE": 128, "BESIDE": 1, "ROWS": 8, "COLUMNS": 128, "TILES": 16}
IMAGE |= {"COUNT": 16, "LAST": 1 << 15 | 1 << 5, "LOW_BITS": 15, "LIMBS": 16, "JOINTS": 32}


def programs() -> list[tuple[Any, dict[str, Any]]]:
    """Every program, with each choice that changes its code."""
    found = []
    for flag in (False, True):
        choices = {**TILE, "AFFINE": flag, "RUNNING": flag}
        found += [(getattr(normalisation, name), choices) for name in normalisation.__all__]
        found += [(getattr(drawing, name), {**IMAGE, "SQUARED": flag}) for name in drawing.__all__]
    found += [(getattr(upsampling, name), TILE) for name in upsampling.__all__]
    found += [(getattr(convolution, name), STEM) for name in convolution.__all__]
    return found


def kind(name: str) -> str:
    """What Triton calls the type of an argument."""
    if name.endswith("_ptr"):
        return WHOLE.get(name, "*bf16" if name in HALF else "*fp32")
    return "fp32" if name in FLOATS else "i32"


def main() -> None:
    """Compile them all; say how many."""
    target = GPUTarget("cuda", int(sys.argv[1]), 32)
    for program, choices in programs():
        names = program.arg_names
        given = {(names.index(n),): value for n, value in choices.items() if n in names}
        signature = {n: "constexpr" if n in choices else kind(n) for n in names}
        source = ASTSource(fn=program, signature=signature, constexprs=given)
        assert triton.compile(source, target=target).asm["cubin"]
    print(f"{len(programs())} programs for {sys.argv[1]}")


main()
