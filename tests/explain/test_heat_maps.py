import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax.explain.grad_cam import grad_cam
from cxr_jax.explain.heat_maps import heat_maps
from cxr_jax.inference.description import NetworkDescription
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.models.registry import build_model
from cxr_jax.models.state import split_model
from cxr_jax.preprocessing.normalise import normalise
from cxr_jax.vocabulary import CLASS_NAMES


@pytest.fixture(scope="module")
def trained():
    description = NetworkDescription(
        architecture="mobilenetv2_tiny",
        classes=CLASS_NAMES,
        image_size=32,
        resize="squash",
        interpolation="area",
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.25, 0.3),
        weights="",
        weights_sha256="",
        parameters=0,
    )
    graphdef, params, batch_stats = split_model(build_model("mobilenetv2_tiny", classes=2, seed=3))
    return TrainedModel(description, graphdef, params, batch_stats, step=1, threshold=None, threshold_rule=None)


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
