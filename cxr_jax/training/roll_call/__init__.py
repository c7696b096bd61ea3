"""The roll call of the processes of one training: who is there, who is gone, and what all of them agree on."""

from cxr_jax.training.roll_call.chair import Chair
from cxr_jax.training.roll_call.member import Member
from cxr_jax.training.roll_call.roll_call import Leave, Limits, Place, RollCall


def join(place: Place, limits: Limits, leave: Leave) -> RollCall:
    """Meet the other processes at process 0. Raises UserError if they do not come together in time."""
    return (Chair if place.process == 0 else Member)(place, limits, leave)
