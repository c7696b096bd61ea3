"""An exported network behind HTTP."""
