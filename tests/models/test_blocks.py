import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax.models.activations import relu6, silu
from cxr_jax.models.blocks import (
    Block,
    BlockShape,
    ConvolutionBlock,
    DepthwiseSeparable,
    FusedInvertedResidual,
    InvertedResidual,
    SqueezeExcitation,
    round_channels,
)
from cxr_jax.models.layers import LayerRules, Mode
from cxr_jax.models.networks.inverted_residual import Scaling, Stage, build_stages
from cxr_jax.models.regularisation import StochasticDepth

RULES = LayerRules(padding="same", activation=silu, epsilon=1e-3)
EVALUATION = Mode()


def images(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("channels", "rounded"), [(4, 8), (12, 16), (16, 16), (19.2, 24), (33.6, 32), (44.8, 48), (11.2, 16), (179.2, 176)]
)
def test_channels_are_rounded_to_eights_and_lose_at_most_a_tenth(channels, rounded):
    assert round_channels(channels) == rounded


def test_without_a_limit_channels_may_lose_more_than_a_tenth():
    assert (round_channels(17.6), round_channels(17.6, round_limit=0.0)) == (16, 16)
    assert (round_channels(19.0), round_channels(19.0, round_limit=0.0)) == (24, 16)


@pytest.mark.parametrize("block", [DepthwiseSeparable, InvertedResidual, FusedInvertedResidual, ConvolutionBlock])
def test_a_block_adds_its_input_only_where_the_shapes_allow(block):
    x = images(2, 9, 7, 8)
    kept = block(BlockShape(8, 8, expansion=2), RULES, np.random.default_rng(0))
    np.testing.assert_allclose(kept(x, EVALUATION), x + kept.branch(x, EVALUATION), rtol=1e-6)
    for shape, expected in [
        (BlockShape(8, 16, expansion=2), (2, 9, 7, 16)),
        (BlockShape(8, 8, 2, expansion=2), (2, 5, 4, 8)),
    ]:
        changed = block(shape, RULES, np.random.default_rng(0))
        y = changed(x, EVALUATION)
        assert y.shape == expected
        np.testing.assert_array_equal(y, changed.branch(x, EVALUATION))


def test_a_block_without_a_branch_is_no_block():
    with pytest.raises(NotImplementedError):
        Block(BlockShape(8, 8), RULES)(images(1, 2, 2, 8), EVALUATION)


def test_only_the_plain_convolution_block_activates_its_output():
    # ReLU6 leaves nothing negative; a linear projection does
    rules, x = LayerRules(padding="symmetric", activation=relu6, epsilon=1e-5), images(2, 6, 6, 8)
    lowest = {
        block: float(block(BlockShape(8, 16, expansion=2), rules, np.random.default_rng(0))(x, EVALUATION).min())
        for block in (DepthwiseSeparable, InvertedResidual, FusedInvertedResidual, ConvolutionBlock)
    }
    assert lowest.pop(ConvolutionBlock) == 0
    assert all(value < 0 for value in lowest.values())


def test_squeeze_and_excitation_scales_whole_channels():
    layer = SqueezeExcitation(6, 2, RULES, np.random.default_rng(1))
    x = images(3, 4, 5, 6)
    squeezed = np.asarray(x).mean((1, 2))
    hidden = squeezed @ np.asarray(layer.conv_reduce.kernel[0, 0])
    hidden = hidden / (1 + np.exp(-hidden))
    factor = 1 / (1 + np.exp(-(hidden @ np.asarray(layer.conv_expand.kernel[0, 0]))))
    np.testing.assert_allclose(layer(x), x * factor[:, None, None], rtol=1e-5)


def test_squeezed_channels_are_a_share_of_the_blocks_inputs():
    block = InvertedResidual(BlockShape(24, 32, expansion=6, squeeze=0.25), RULES, np.random.default_rng(0))
    assert block.se.conv_reduce.kernel.shape == (1, 1, 144, 6)
    assert InvertedResidual(BlockShape(24, 32, expansion=6), RULES, np.random.default_rng(0)).se is None


def test_a_skipped_branch_leaves_the_input():
    shape = BlockShape(8, 8, depth=StochasticDepth(0.5, 1))
    block, x = ConvolutionBlock(shape, RULES, np.random.default_rng(0)), images(40, 3, 3, 8)
    y = block(x, Mode(keys=jax.random.split(jax.random.key(0), 40)))
    skipped = np.array([np.array_equal(a, b) for a, b in zip(x, y, strict=True)])
    assert 8 < skipped.sum() < 32
    expected = (x + 2 * block.branch(x, EVALUATION))[~skipped]
    np.testing.assert_allclose(y[~skipped], expected, rtol=1e-5, atol=1e-5)


def test_a_table_of_stages_becomes_blocks():
    table = (Stage(ConvolutionBlock, 16, repeats=2, stride=1), Stage(FusedInvertedResidual, 24, 3, 2, expansion=4))
    stages, outputs = build_stages(table, 16, Scaling(), 0.5, RULES, np.random.default_rng(0))
    assert outputs == 24
    assert [len(stage) for stage in stages] == [2, 3]
    assert [block.has_skip for stage in stages for block in stage] == [True, True, False, True, True]
    depths = [block.depth for stage in stages for block in stage]
    assert [depth.rate for depth in depths] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert len({depth.layer for depth in depths}) == 5
    assert all(depth.layer > 0 for depth in depths)  # 0 is the classifier's dropout


def test_scaling_widens_and_deepens():
    table = (Stage(ConvolutionBlock, 16, repeats=2, stride=1),)
    stages, outputs = build_stages(table, 8, Scaling(width=1.4, depth=1.2), 0.0, RULES, np.random.default_rng(0))
    assert (len(stages[0]), outputs) == (3, 24)
