"""The commands of `cxr-jax`: a module each, with its SUMMARY and `main(arguments) -> exit code or None`.

Names and summaries stand here too, as data, so that the help imports no command.
"""

GROUPS: dict[str, dict[str, str]] = {
    "Data": {
        "prepare": "store radiographs as records, with a data card",
        "phantoms": "draw phantoms in the layout of the official data set",
    },
    "Train and judge": {
        "train": "train a network as a config says",
        "predict": "predict on files, as a table or JSON",
    },
    "Speed": {
        "bench": "measure speed and memory, beside stock convolutions or PyTorch",
    },
}
"""Commands in the order of use, by what they are for; a name's module has `_` for `-`."""
