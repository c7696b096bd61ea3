"""What type checkers see of the package, whose names are imported when they are first asked for."""

from cxr_jax.api import Model, Prediction, TrainedRun, Unreadable, Validation, judge, load, train
from cxr_jax.errors import UserError

__version__: str
__all__ = ["Model", "Prediction", "TrainedRun", "Unreadable", "UserError", "Validation", "judge", "load", "train"]
