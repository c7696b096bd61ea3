#!/usr/bin/env python
"""Store what timm's networks give and learn from drawn weights, for tests that run without torch.

    pip install -e '.[port]'
    .venv/bin/python scripts/make_goldens.py

Run it again when tests/goldens/drawn.py or the list below changes, and commit the files.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cxr_jax.errors import run_script
from cxr_jax.runs.files import write_bytes

GOLDENS = Path(__file__).parents[1] / "tests" / "goldens"

TINY = ("mobilenetv2_tiny", "efficientnetv2_tiny")
STUDIED = ("mobilenetv2_100", "tf_efficientnetv2_s")
SMALL = (
    "mobilenetv1_tiny",
    "squeezenet_tiny",
    "efficientnet_lite_tiny",
    "resnet_basic_tiny",
    "resnet_tiny",
    "densenet_tiny",
    "xception_tiny",
    "inception_tiny",
)
"""One of each other family."""


def main(_: Sequence[str]) -> None:
    """Write tests/goldens/NETWORK-WHAT[-SIZE].npz."""
    sys.path.append(str(GOLDENS))
    import their_networks
    from agreement import fingerprints

    found = {
        f"{name}-outputs-{size}": their_networks.outputs(name, size, "float64") for name in TINY for size in (64, 97)
    }
    found |= {f"{name}-outputs-97": their_networks.outputs(name, 97, "float64") for name in STUDIED}
    found |= {f"{name}-training_pass": their_networks.training_pass(name, "float64") for name in TINY}
    found |= {f"{name}-sgd": their_networks.sgd(name) for name in TINY}
    found |= {
        f"{name}-stages-{size}": their_networks.stages(name, size, "float64") for name in SMALL for size in (80, 97)
    }
    found |= {f"{name}-learning": their_networks.learning(name) for name in SMALL}
    for stem, arrays in found.items():
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **fingerprints(arrays))
        write_bytes(GOLDENS / f"{stem}.npz", buffer.getvalue())
        print(f"{stem}.npz: {len(arrays)} arrays, {buffer.tell() / 1e3:.0f} kB")


if __name__ == "__main__":
    run_script(main)
