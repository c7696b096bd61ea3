"""How large an architecture is: its parameters, and the work of one image."""

from __future__ import annotations

import json
import math
from dataclasses import astuple, dataclass
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp

from cxr_jax.models.head import USUAL, Head
from cxr_jax.models.registry import ARCHITECTURES, find_architecture, model_shapes
from cxr_jax.models.state import ArrayDict, merge_model

TABLE = "measured_sizes.json"
"""What `measure` found of every network that comes with the package, at its own `image_size`: a file beside this one.

To trace all of them takes ten seconds and more. `python -m cxr_jax.models.size` writes it anew.
"""


@dataclass(frozen=True)
class Size:
    """What a network costs."""

    parameters: int
    multiply_adds: float  # of the forward pass of one image


def size_of(
    name: str,
    *,
    classes: int,
    image_size: int | None = None,
    until: str = "",
    head: Head = USUAL,
    denoiser: int = 0,
) -> Size:
    """Returns the size of a network as `measure` does, from TABLE where that has it.

    Raises UserError for an unknown name.
    """
    known = measured_sizes().get(name)
    own = image_size in (None, find_architecture(name).image_size)
    if known is None or until or not own or not head.is_usual or denoiser:
        shape = {"until": until, "head": head, "denoiser": denoiser}
        return measure(name, classes=classes, image_size=image_size, **shape)
    first, slope = known
    return Size(
        parameters=first.parameters + (classes - 1) * slope.parameters,
        multiply_adds=first.multiply_adds + (classes - 1) * slope.multiply_adds,
    )


def measured_sizes() -> dict[str, tuple[Size, Size]]:
    """Returns TABLE: by name the size with one class, and what each further class adds."""
    table = json.loads(resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8"))
    return {name: (Size(*first), Size(*slope)) for name, (first, slope) in table.items()}


def measure(
    name: str,
    *,
    classes: int,
    image_size: int | None = None,
    until: str = "",
    head: Head = USUAL,
    denoiser: int = 0,
) -> Size:
    """Returns the size of the network `name` for `classes` classes and square images, by default of its own
    `image_size`; with `until` that of its first stages, as `build_model` cuts it, and with the `head` and the
    `denoiser` that it is to have.

    Multiply-adds are half of the floating-point operations that XLA's cost analysis counts in the program before
    optimisation, with plain convolutions. Nothing is compiled. Raises UserError for an unknown name.
    """
    side = image_size or find_architecture(name).image_size
    shape = {"until": until, "head": head, "denoiser": denoiser}
    graphdef, params, batch_stats = model_shapes(name, classes=classes, lowering="plain", **shape)

    def forward(params: ArrayDict, batch_stats: ArrayDict, images: jax.Array) -> jax.Array:
        return merge_model(graphdef, params, batch_stats)(images)

    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    costs = jax.jit(forward).lower(params, batch_stats, images).cost_analysis()
    return Size(parameters=sum(math.prod(value.shape) for value in params.values()), multiply_adds=costs["flops"] / 2)


def _write_table(path: Path) -> None:
    """Writes TABLE to `path`, one network a line."""
    lines = []
    for name in ARCHITECTURES:
        one, many = (astuple(measure(name, classes=classes)) for classes in (1, 1001))
        # XLA counts in float32, which does not resolve what one class adds to a large network
        slope = [round((there - here) / 1000, 1) for here, there in zip(one, many, strict=True)]
        lines.append(f"  {json.dumps(name)}: {json.dumps([[one[0], one[1]], [int(slope[0]), slope[1]]])}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    _write_table(Path(__file__).with_name(TABLE))
