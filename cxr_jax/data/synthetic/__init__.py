"""Images that a generator made: how they are marked, and how they are kept for training."""
