"""What our networks give and learn from drawn weights and images, as dictionaries of arrays.

`their_networks` has functions of the same names for timm's, with the same keys.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from drawn import (
    CLASSES,
    DECAY,
    LEARNING_BATCH,
    MOMENTUM,
    RATE,
    SGD_BATCH,
    SGD_SIZE,
    SGD_STEPS,
    TRAINING_BATCH,
    TRAINING_SIZE,
    drawn_images,
    drawn_labels,
    drawn_tensors,
    learning_size,
)

from cxr_jax.models.layers import Mode
from cxr_jax.models.pretrained import fit_weights
from cxr_jax.models.registry import find_architecture, model_shapes
from cxr_jax.models.state import batch_stats_of, merge_model, split_model


def network(name, dtype):
    """The network of that name with drawn weights, taken apart."""
    graphdef, *shapes = model_shapes(name, classes=CLASSES)
    shapes = [{key: jax.ShapeDtypeStruct(value.shape, dtype) for key, value in part.items()} for part in shapes]
    tensors = drawn_tensors(shapes[0] | shapes[1], find_architecture(name).original_names)
    loaded = fit_weights(tensors, {}, "drawn", name, *shapes)
    assert loaded.fresh == ()
    return graphdef, loaded.params, loaded.batch_stats


def outputs(name, size, dtype):
    """Output of the stem, every block, the head, pooling and the classifier, in evaluation mode."""
    with jax.enable_x64(dtype == "float64"):
        model, mode = merge_model(*network(name, dtype)), Mode()

        # blocks of one shape share a program
        @functools.partial(jax.jit, static_argnums=0)
        def run(graphdef, params, batch_stats, x):
            return merge_model(graphdef, params, batch_stats)(x, mode)

        images = jnp.asarray(drawn_images(2, size), dtype)
        x = jax.jit(lambda x: model.activation(model.bn1(model.conv_stem(x), mode)))(images)
        found = {"conv_stem": x}
        for stage, blocks in enumerate(model.blocks):
            for index, block in enumerate(blocks):
                x = found[f"blocks.{stage}.{index}"] = run(*split_model(block), x)
        features = jax.jit(lambda x: model.activation(model.bn2(model.conv_head(x), mode)))(x)
        pooled = jnp.mean(features, (1, 2))
        return found | {"conv_head": features, "pooled": pooled, "logits": model.classify_pooled(pooled)}


def stages(name, size, dtype):
    """Output of every stage and the classifier, in evaluation mode."""

    @functools.partial(jax.jit, static_argnums=0)
    def run(graphdef, params, batch_stats, x):
        model, found = merge_model(graphdef, params, batch_stats), {}
        for stage in model.stages:
            x = found[stage.name] = stage.run(x, Mode())
        return found | {"logits": model.classify(x)}

    with jax.enable_x64(dtype == "float64"):
        return run(*network(name, dtype), jnp.asarray(drawn_images(2, size), dtype))


def learning(name):
    """What the first of five steps of SGD in float64 gives, the losses of all, and the network after them."""
    with jax.enable_x64(True):
        graphdef, params, batch_stats = network(name, "float64")
        optimizer = optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(RATE, MOMENTUM))
        step, update, state = _step(graphdef), _update(optimizer), jax.jit(optimizer.init)(params)
        found, losses, labels = {}, [], jnp.asarray(drawn_labels(LEARNING_BATCH))
        for iteration in range(SGD_STEPS):
            images = jnp.asarray(drawn_images(LEARNING_BATCH, learning_size(name), seed=iteration))
            gradients, loss, logits, batch_stats = step(params, batch_stats, images, labels)
            if not found:
                found = {"logits": logits} | _prefixed("gradients", gradients) | _prefixed("moved", batch_stats)
            params, state = update(gradients, state, params)
            losses.append(loss)
        after = _prefixed("params", params) | _prefixed("statistics", batch_stats)
        return found | {"losses": jnp.stack(losses)} | after


def _step(graphdef):
    @jax.jit
    def step(params, batch_stats, images, labels):
        def loss_of(params):
            model = merge_model(graphdef, params, batch_stats)
            logits = model(images, train=True)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, (logits, batch_stats_of(model))

        (loss, (logits, moved)), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        return gradients, loss, logits, moved

    return step


def _update(optimizer):
    @jax.jit
    def update(gradients, state, params):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return update


def training_pass(name, dtype):
    """Logits of a pass in training mode, the statistics that it moves, and the gradient of every parameter."""
    with jax.enable_x64(dtype == "float64"):
        graphdef, params, batch_stats = network(name, dtype)
        images = jnp.asarray(drawn_images(TRAINING_BATCH, TRAINING_SIZE), dtype)
        labels = jnp.asarray(drawn_labels(TRAINING_BATCH))
        gradients, _, logits, moved = _step(graphdef)(params, batch_stats, images, labels)
    return {"logits": logits} | _prefixed("statistics", moved) | _prefixed("gradients", gradients)


def sgd(name):
    """Losses of five steps of SGD in float64, and the parameters and statistics after them."""
    with jax.enable_x64(True):
        graphdef, params, batch_stats = network(name, "float64")
        optimizer = optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(RATE, MOMENTUM))
        step, update, state = _step(graphdef), _update(optimizer), jax.jit(optimizer.init)(params)
        losses, labels = [], jnp.asarray(drawn_labels(SGD_BATCH))
        for iteration in range(SGD_STEPS):
            images = jnp.asarray(drawn_images(SGD_BATCH, SGD_SIZE, seed=iteration))
            gradients, loss, _, batch_stats = step(params, batch_stats, images, labels)
            params, state = update(gradients, state, params)
            losses.append(loss)
        return {"losses": jnp.stack(losses)} | _prefixed("params", params) | _prefixed("statistics", batch_stats)


def _prefixed(prefix, arrays):
    return {f"{prefix}.{name}": value for name, value in arrays.items()}
