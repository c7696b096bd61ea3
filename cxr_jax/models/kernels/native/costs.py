"""Operations and bytes of the native kernels' calls, which XLA's own count of a compiled program leaves out."""

from __future__ import annotations

import math
import re

_DEFINITION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (f32|bf16)\[([\d,]*)\]", re.MULTILINE)
_CALL = re.compile(
    r"^\s*(?:ROOT )?%?([\w.\-]+) = \S+ custom-call\(([^)]*)\), custom_call_target=\"cxr_jax_(\w+)\"", re.MULTILINE
)
_BYTES = {"f32": 4, "bf16": 2}


def native_costs(program: str) -> tuple[float, float]:
    """Returns operations of convolutions, and bytes of all operands and results, of the native calls in a compiled
    program.

    `program` is its text as XLA prints it. A multiply-add is two operations; of everything but convolutions no
    operations are counted.
    """
    program = re.sub(r"/\*.*?\*/", "", program)  # longer lists have their elements numbered in between
    arrays = {
        name: (kind, tuple(int(length) for length in lengths.split(",") if length))
        for name, kind, lengths in _DEFINITION.findall(program)
    }
    flops = copied = 0.0
    for result, operands, handler in _CALL.findall(program):
        # an operand is printed with or without its type before its name
        names = [operand.split()[-1].lstrip("%") for operand in re.split(r",\s*(?=%|\w+\[)", operands)]
        shapes = [arrays[name] for name in [*names, result]]
        copied += sum(_BYTES[kind] * math.prod(shape) for kind, shape in shapes)
        if handler == "inverted_residual":
            (_, x), (_, widening), (_, depthwise), (_, projecting), (_, y) = shapes[0:1] + shapes[1:10:3] + shapes[-1:]
            widened, filtered = math.prod(x[:3]) * widening[3], math.prod(y[:3]) * widening[3]
            flops += 2.0 * (widened * x[3] + filtered * math.prod(depthwise[:2]) + filtered * projecting[3])
        elif handler.removeprefix("normalised_").startswith(("convolution", "depthwise", "any_depthwise")):
            of_kernel = handler.endswith("_kernel")
            kernel = shapes[-1] if of_kernel else shapes[1]
            # every element on the output's side meets one window
            output = shapes[1] if of_kernel else shapes[0] if handler.endswith("_input") else shapes[-1]
            flops += 2.0 * math.prod(output[1]) * math.prod(kernel[1][:3])
    return flops, copied
