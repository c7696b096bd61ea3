import jax
import jax.numpy as jnp

from cxr_jax.models.kernels import platform
from cxr_jax.models.kernels.platform import chosen_by_platform, every_platform


@jax.jit
def either(x):
    return chosen_by_platform(x, cpu=jnp.sin, default=jnp.cos)


def operations():
    return either.trace(jnp.ones(3)).jaxpr.jaxpr.pretty_print()


def test_where_only_cpus_are_their_way_alone_is_traced():
    assert "sin" in operations() and "cos" not in operations()


def test_what_is_lowered_for_other_platforms_has_both_ways_though_it_was_traced_before():
    assert "cos" not in operations()
    with every_platform(True):
        assert "sin" in operations() and "cos" in operations()
        traced = either.trace(jnp.ones(3))
    assert "cosine" in traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "cosine" not in traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "cos" not in operations()


def test_beside_another_platform_both_ways_are_traced(monkeypatch):
    monkeypatch.setattr(platform, "backends", lambda: {"cpu": None, "cuda": None})
    program = str(jax.make_jaxpr(lambda x: chosen_by_platform(x, cpu=jnp.sin, default=jnp.cos))(jnp.ones(3)))
    assert "sin" in program and "cos" in program
