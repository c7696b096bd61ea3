"""Results from the literature on the official test split, to stand beside one's own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A result from the literature, one network each; what was not published is None."""

    name: str
    accuracy: float | None = None
    sensitivity: float | None = None
    specificity: float | None = None
    roc_auc: float | None = None


PUBLISHED = (
    # Barnett, 2023, MobileNetV2 in MATLAB: accuracies only.
    Published("Barnett 2023, scratch", accuracy=489 / 624),
    Published("Barnett 2023, transfer", accuracy=496 / 624),
    # Lee, Pratheepan & Teixeira, 2024, two phases: TN 184, FP 50, FN 39, TP 351; the area under the curve as printed.
    Published(
        "Lee 2024, EfficientNetV2-S",
        accuracy=(351 + 184) / 624,
        sensitivity=351 / 390,
        specificity=184 / 234,
        roc_auc=0.905,
    ),
)
"""The results of the two studies that the recipes here follow."""
