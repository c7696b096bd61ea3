"""A sweep: variants of a config, each with several seeds, trained side by side and compared on validation."""
