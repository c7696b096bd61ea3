"""Images in memory and their batches: what training and inference know of data."""
