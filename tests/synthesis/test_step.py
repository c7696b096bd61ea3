import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax.config.schema import Config, DataConfig, SynthesisConfig
from cxr_jax.devices import replicate
from cxr_jax.models.kernels.native import operations as kernels
from cxr_jax.models.layers import Mode
from cxr_jax.models.state import merge_model, split_model
from cxr_jax.synthesis import run
from cxr_jax.synthesis.networks import Discriminator, Generator, doubled, doubled_by_parity
from cxr_jax.synthesis.run import compile_synthesis_step, plan_synthesis
from cxr_jax.synthesis.step import build_networks, synthesis_step, training_latents
from cxr_jax.training.feed import HostFeed
from cxr_jax.training.precision import Activations
from cxr_jax.training.step import DeviceBatch

TRAINING = Mode(batch_statistics=True)


def cross_entropy(logits, target):
    """The textbook's, of probabilities."""
    chance = 1 / (1 + jnp.exp(-logits))
    return -jnp.mean(target * jnp.log(chance) + (1 - target) * jnp.log(1 - chance))


def test_a_step_is_that_of_the_paper_written_out(config, images):
    """The discriminator's update on real and made images, then the generator's by the discriminator after it."""
    smoothing = config.synthesis.label_smoothing
    assert smoothing == 0.1
    networks, state = build_networks(config)
    batch = DeviceBatch(jnp.asarray(images.images[:8]), jnp.zeros(8, jnp.int32), jnp.arange(8, dtype=jnp.int32))
    epoch = jnp.asarray(3, jnp.int32)

    @jax.jit
    def expected(state):
        latents = training_latents(0, epoch, batch.ids, 6)
        real = (batch.images.astype(jnp.float32) / 127.5 - 1)[..., None]

        def make(params):
            return merge_model(networks.generator, params, state.generator.batch_stats)(latents, TRAINING)

        def judge(params, images):
            return merge_model(networks.discriminator, params, state.discriminator.batch_stats)(images, TRAINING)

        def of_discriminator(params):
            made = judge(params, make(state.generator.params))
            return cross_entropy(judge(params, real), 1 - smoothing) + cross_entropy(made, 0.0)

        # Adam's first step goes by the rate against the sign of the gradient
        rate, small = 2e-4, 1e-8
        first, gradients = jax.value_and_grad(of_discriminator)(state.discriminator.params)
        params = state.discriminator.params
        discriminator = {
            name: value - rate * gradients[name] / (jnp.abs(gradients[name]) + small) for name, value in params.items()
        }
        second, gradients = jax.value_and_grad(lambda params: cross_entropy(judge(discriminator, make(params)), 1.0))(
            state.generator.params
        )
        generator = {
            name: value - rate * gradients[name] / (jnp.abs(gradients[name]) + small)
            for name, value in state.generator.params.items()
        }
        return first, second, discriminator, generator, gradients

    first, second, discriminator, generator, gradients = expected(state)
    plan = plan_synthesis(config, images)
    step = run.compile_synthesis_step(plan, networks, state, HostFeed(images))
    # which consumes the state
    before = jax.tree.map(np.array, state)
    after, metrics = step(replicate(state, plan.devices), step.place(jax.tree.map(np.asarray, batch)), 3)
    state = before
    np.testing.assert_allclose(metrics.discriminator_loss, first, rtol=1e-5)
    np.testing.assert_allclose(metrics.generator_loss, second, rtol=1e-5)
    for name, value in discriminator.items():
        np.testing.assert_allclose(after.discriminator.params[name], value, atol=1e-6, err_msg=name)
    for name, value in generator.items():
        np.testing.assert_allclose(after.generator.params[name], value, atol=2e-5, err_msg=name)
        # what Adam remembers of the first gradient is a half of it
        np.testing.assert_allclose(after.generator.optimizer_state[0].mu[name], gradients[name] / 2, atol=1e-6)
    assert int(after.step) == 1
    moved = after.generator.batch_stats["norms.0.mean"] - state.generator.batch_stats["norms.0.mean"]
    assert np.abs(moved).max() > 0


def test_latent_vectors_follow_seed_epoch_and_id_alone():
    drawn = jax.jit(training_latents, static_argnums=3)
    ids, others = np.array([4, 9], np.int32), np.array([9, 5], np.int32)
    both = drawn(0, np.int32(1), ids, 1000)
    np.testing.assert_array_equal(drawn(0, np.int32(1), others, 1000)[0], both[1])
    for other in (drawn(1, np.int32(1), ids, 1000), drawn(0, np.int32(2), ids, 1000)):
        assert not np.array_equal(other, both)
    assert np.min(both) >= -1 and np.max(both) <= 1
    np.testing.assert_allclose(np.std(both), 1 / 3**0.5, rtol=0.05)


@pytest.mark.parametrize("size", [16, 64, 128])
def test_both_networks_have_the_paper_s_maps(size):
    config = Config(data=DataConfig(image_size=size), synthesis=SynthesisConfig(generator="dcgan", channels=2))
    draws = np.random.default_rng(0)
    generator = split_model(Generator(size, 100, 2, draws))
    discriminator = split_model(Discriminator(size, 2, draws))
    levels = {16: 2, 64: 4, 128: 5}[size]
    kernels = [generator[1][f"convolutions.{level}.kernel"].shape for level in range(levels)]
    widths = [2 * 2**level for level in reversed(range(levels))]
    assert kernels == [(4, 4, wide, narrow) for wide, narrow in zip(widths, [*widths[1:], 1], strict=True)]
    assert generator[1]["first_kernel"].shape == (100, 16 * widths[0])
    # none in the generator's output, none at the discriminator's input
    assert sum(name.endswith("scale") for name in generator[1]) == levels
    assert sum(name.endswith("scale") for name in discriminator[1]) == levels - 1
    latents = jax.ShapeDtypeStruct((3, 100), jnp.float32)
    images = jax.eval_shape(lambda latents: merge_model(*generator)(latents, TRAINING), latents)
    assert images.shape == (3, size, size, 1)
    logits = jax.eval_shape(lambda images: merge_model(*discriminator)(images, TRAINING), images)
    assert logits.shape == (3,)
    assert build_networks(config)[0].image_size == size


def test_kernels_begin_as_narrow_normals():
    _, params, _ = split_model(Generator(64, 100, 16, np.random.default_rng(0)))
    for name, value in params.items():
        if "kernel" in name and value.size > 4000:
            np.testing.assert_allclose(value.std(), 0.02, rtol=0.05, err_msg=name)
        if "scale" in name:
            np.testing.assert_allclose(value.mean(), 1, atol=0.02, err_msg=name)


def test_bfloat16_is_of_activations_alone(config):
    """On GPUs and TPUs it is the default: everything that is kept, and every figure, stays float32."""
    networks, state = build_networks(config)
    batch = DeviceBatch(
        jax.ShapeDtypeStruct((8, 16, 16), jnp.uint8),
        jax.ShapeDtypeStruct((8,), jnp.int32),
        jax.ShapeDtypeStruct((8,), jnp.int32),
    )
    epoch = jax.ShapeDtypeStruct((), jnp.int32)
    for precision in ("float32", "bf16"):
        how = {"networks": networks, "config": config, "precision": precision}
        after, metrics = jax.eval_shape(functools.partial(synthesis_step, **how), state, batch, epoch)
        assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [leaf.dtype for leaf in jax.tree.leaves(state)]
        assert {leaf.dtype for leaf in metrics} == {jnp.dtype(jnp.float32)}
        text = str(jax.make_jaxpr(functools.partial(synthesis_step, **how))(state, batch, epoch))
        assert ("bf16[8,16,16" in text) == (precision == "bf16")


def test_the_convolution_by_parity_is_the_transposed_one():
    draws = np.random.default_rng(0)
    x = jnp.asarray(draws.standard_normal((2, 3, 5, 4)), jnp.float32)
    kernel = jnp.asarray(draws.standard_normal((4, 4, 4, 3)), jnp.float32)

    np.testing.assert_allclose(doubled_by_parity(x, kernel), doubled(x, kernel), atol=1e-5)
    # a single pixel reaches the 4 x 4 pixels around its place
    alone = doubled(jnp.zeros((1, 3, 3, 1), jnp.float32).at[0, 1, 1, 0].set(1.0), jnp.ones((4, 4, 1, 1), jnp.float32))
    assert np.argwhere(alone[0, :, :, 0]).min(0).tolist() == [1, 1]
    assert float(alone.sum()) == 16


def test_native_kernels_convolve_and_differentiate_by_parity_as_xla_does(native_kernels):
    """In bfloat16: products are rounded to 8 bits, sums are not."""
    draws = np.random.default_rng(0)
    kernel = jnp.asarray(draws.standard_normal((4, 4, 40, 3)), jnp.float32)
    x, g = (jnp.asarray(draws.standard_normal(shape), jnp.bfloat16) for shape in ((2, 3, 5, 40), (2, 6, 10, 3)))

    def natively(x, kernel):
        return doubled_by_parity(x, kernel, kernels.convolution)

    def in_float32(x, kernel):
        return doubled(x.astype(jnp.float32), kernel.astype(jnp.bfloat16).astype(jnp.float32))

    found, back = jax.vjp(natively, x, kernel)
    expected, expected_back = jax.vjp(in_float32, x, kernel)
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, rtol=2**-7, atol=2**-7 * np.abs(expected).max())
    for one, other in zip(back(g), expected_back(g.astype(jnp.float32)), strict=True):
        other = np.asarray(other, np.float32)
        np.testing.assert_allclose(np.asarray(one, np.float32), other, rtol=0, atol=2**-7 * np.abs(other).max())


def test_the_program_calls_the_native_kernels_where_the_plan_says_so(native_kernels, config, images):
    """In both networks: forward, and for the gradients of inputs and kernels."""
    networks, state = build_networks(config)
    feed = HostFeed(images)

    def calls(precision, natively):
        plan = dataclasses.replace(plan_synthesis(config, images), activations=Activations(precision, natively))
        program = compile_synthesis_step(plan, networks, state, feed).compiled.as_text()
        return [program.count(f'custom_call_target="cxr_jax_{name}') for name in ("convolution", "statistics")]

    assert calls("float32", natively=False) == calls("float32", natively=True) == [0, 0]
    convolutions, statistics = calls("bf16", natively=True)
    # of 16 pixels: two convolutions by four parities and two strided ones, and two BatchNorms and one
    assert convolutions >= 2 * 4 + 3 * 2 and statistics >= 2 + 3 * 1


def test_a_step_by_native_kernels_measures_what_one_in_float32_does(native_kernels, config, images):
    networks, state = build_networks(config)
    batch = DeviceBatch(*(jnp.asarray(values[:8]) for values in (images.images, images.labels, images.ids)))
    step = functools.partial(synthesis_step, state, batch, jnp.asarray(0, jnp.int32), networks=networks, config=config)
    found, expected = (
        jax.jit(step, static_argnames=("precision", "native_kernels"))(precision="bf16", native_kernels=True),
        jax.jit(step, static_argnames="precision")(precision="float32"),
    )
    for name in ("discriminator_loss", "generator_loss"):
        np.testing.assert_allclose(getattr(found[1], name), getattr(expected[1], name), rtol=0.02, err_msg=name)
    for name in ("generator", "discriminator"):
        for key, value in getattr(expected[0], name).batch_stats.items():
            near = getattr(found[0], name).batch_stats[key]
            np.testing.assert_allclose(near, value, rtol=0, atol=0.02 * np.abs(value).max(), err_msg=key)
