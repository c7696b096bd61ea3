"""One experiment as frozen dataclasses, read from TOML and overridden from the command line."""
