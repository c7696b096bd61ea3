"""Drawn radiographs: no person was ever in front of the tube. For tests, the quickstart and demonstrations."""

from cxr_jax.data.phantoms.findings import write_phantom_findings
from cxr_jax.data.phantoms.folder import write_phantoms

__all__ = ["write_phantom_findings", "write_phantoms"]
