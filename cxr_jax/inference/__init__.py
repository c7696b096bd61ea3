"""A trained run brought back: its network, its normalisation and its logits."""
