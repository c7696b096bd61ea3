import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax.explain.grad_cam import grad_cam
from cxr_jax.explain.heat_maps import heat_maps
from cxr_jax.preprocessing.normalise import normalise


@pytest.fixture(scope="module")
def trained(tiny_trained):
    return tiny_trained(loud=False, step=1, threshold=None, threshold_rule=None)


def test_padded_batches_give_what_single_images_give(trained):
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8)
    classes = np.array([0, 1, 1, 0, 1])
    found = heat_maps(trained, images, classes, "blocks.2", batch_size=2)
    assert found.heat.shape == (5, 4, 4)
    for row in range(5):
        pixels = normalise(jnp.asarray(images[row : row + 1]), trained.mean, trained.std)
        alone = grad_cam(trained.model(), pixels, int(classes[row]), "blocks.2")
        np.testing.assert_allclose(found.heat[row], alone.heat[0], rtol=0, atol=1e-4)
        assert found.blank[row] == alone.blank[0]
