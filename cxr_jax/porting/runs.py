"""The network of a trained run as weights under timm's names, for another run to begin with."""

from __future__ import annotations

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.inference.restore import restore_run
from cxr_jax.models.network import CLASSIFIER, DENOISER, TRANSITION, has_prefix
from cxr_jax.models.original_names import as_torch, original_name
from cxr_jax.models.registry import find_architecture
from cxr_jax.porting.sources import UNKNOWN, SourceWeights
from cxr_jax.runs.folder import RunFolder


def read_run(run: RunFolder, license: str = "") -> SourceWeights:
    """Returns the weights of the network that a run stands for.

    A denoiser is left out, and a transition layer with the classifier behind it: no other network has the maps that
    they are for. Raises UserError if the run is an ensemble or a probe, or has no intact checkpoint.
    """
    trained = restore_run(run)
    description = trained.description
    if description.until:
        raise UserError(f"{run.path} is a probe, a network cut behind {description.until}: name a trained run")
    known = find_architecture(description.architecture)
    left_out = (DENOISER, TRANSITION, CLASSIFIER) if description.transition else (DENOISER,)
    arrays = trained.params | trained.batch_stats
    return SourceWeights(
        tensors={
            original_name(name, known.original_names): as_torch(name, np.asarray(value))
            for name, value in arrays.items()
            if not has_prefix(name, left_out)
        },
        architecture=description.architecture,
        image_size=description.image_size,
        mean=description.mean,
        std=description.std,
        interpolation=known.interpolation,
        source=f"the run {run.name}, step {trained.step}, checkpoint {trained.checkpoint_sha256[:12]}",
        license=license or UNKNOWN,
    )
