"""Training: the state, the one pure step and its wrappers, the phases and the loop."""
