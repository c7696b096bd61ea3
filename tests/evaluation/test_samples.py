import dataclasses

import numpy as np
import pytest

from cxr_jax.evaluation.kernel_distance import KernelDistance
from cxr_jax.evaluation.memorisation import Memorisation
from cxr_jax.evaluation.samples import JudgedSamples, Likeness, likeness, verdict_of

APART = Memorisation(median=9, median_held_out=8, limit=5, share=0.04, low=0.02, high=0.06, copies=False)
GOOD = JudgedSamples(
    samples=100,
    training_images=80,
    held_out_images=20,
    image_size=64,
    network="mobilenetv2_100",
    pretrained=True,
    scales=3,
    distance=KernelDistance(0.011, 0.002, 5, (100, 80)),
    distance_of_halves=KernelDistance(0.010, 0.002, 2, (40, 40)),
    samples_alike=Likeness(0.30, 0.01, 500),
    real_alike=Likeness(0.31, 0.01, 500),
    in_pixels=APART,
    in_features=APART,
)


def test_samples_like_real_images_are_told_so():
    like, diverse, pixels, features = verdict_of(GOOD)
    assert like == (
        "No difference from real images was found (KID 0.011 ± 0.002, and 0.01 ± 0.002 between halves of the "
        "training images, in the features of mobilenetv2_100)."
    )
    assert diverse.startswith("No less diverse than real images (MS-SSIM of pairs over 3 scales: 0.300 ± 0.010")
    assert pixels.startswith("No copies were found: 4.0% of the samples are nearer to a training image, by grey levels")
    assert "by features" in features


@pytest.mark.parametrize(
    ("change", "place", "begins"),
    [
        ({"distance": KernelDistance(0.05, 0.002, 5, (100, 80))}, 0, "Unlike real images"),
        ({"distance": None}, 0, "There are too few images"),
        ({"samples_alike": Likeness(0.40, 0.01, 500)}, 1, "Less diverse than real images"),
        ({"in_pixels": dataclasses.replace(APART, copies=True)}, 2, "Copies: the generator repeats training images"),
        ({"in_features": dataclasses.replace(APART, copies=True)}, 3, "Copies: the generator repeats training images"),
    ],
)
def test_each_fault_is_told(change, place, begins):
    told = verdict_of(dataclasses.replace(GOOD, **change))
    assert told[place].startswith(begins)
    assert [told[other] for other in range(4) if other != place] == [
        verdict_of(GOOD)[other] for other in range(4) if other != place
    ]


def test_features_of_a_random_network_are_told_to_say_little():
    assert "not pretrained, so that they say little" in verdict_of(dataclasses.replace(GOOD, pretrained=False))[0]


def test_the_likeness_of_pairs_has_its_error():
    assert likeness(np.array([0.2, 0.4, 0.6])) == Likeness(pytest.approx(0.4), pytest.approx(0.2 / 3**0.5), 3)
