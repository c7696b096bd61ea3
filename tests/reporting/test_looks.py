import pytest

from cxr_jax.reporting.looks import told_together

BY_CONTENT = {"test_images_sha256": "d1", "looks_at_unknown_images": 0}


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        ([{}], None),
        ([{"looks_at_these_images": None}], None),
        ([{"looks_at_these_images": 1, **BY_CONTENT}], None),
        ([{}, {"looks_at_these_images": 2, **BY_CONTENT}], None),
        (
            [{"looks_at_these_images": 2, **BY_CONTENT}],
            "looked at these test images, or at some of them, twice",
        ),
        (
            [{"looks_at_these_images": 3}],
            "looked at them 3 times, not counting the same images prepared in another way, which this count misses",
        ),
        (
            [{"looks_at_these_images": 1, **BY_CONTENT, "looks_at_unknown_images": 4}],
            "looked 4 times at images that are not known, since an earlier version counted them by data that are no "
            "longer here",
        ),
    ],
)
def test_what_is_told_of_the_looks_of_all_runs(looks, told):
    assert told_together(looks) == told
