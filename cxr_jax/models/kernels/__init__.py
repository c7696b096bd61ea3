"""How convolutions and normalisation are computed: lowerings for XLA, and native kernels for CPUs."""
