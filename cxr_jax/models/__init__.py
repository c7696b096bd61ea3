"""The networks as Flax NNX modules, their parameters under timm's names, and their pretrained weights."""
