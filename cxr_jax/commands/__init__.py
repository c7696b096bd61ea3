"""The commands of `cxr-jax`: a module each, with its SUMMARY and `main(arguments) -> exit code or None`.

Names and summaries stand here too, as data, so that the help imports no command.
"""

GROUPS: dict[str, dict[str, str]] = {
    "Begin": {
        "quickstart": "train, judge and explain a small network, on phantoms or on your data",
    },
    "Data": {
        "phantoms": "draw phantoms in the layout of the official data set",
        "prepare": "store radiographs as records, with a data card",
    },
    "Networks": {
        "models": "list the networks, their size and known weights",
        "port": "turn timm's weights, a file of them, or a run's into one safetensors file",
    },
    "Training": {
        "configs": "list the configs that come with the program, show one, or copy it for changes",
        "augmentations": "show on phantoms how training images are changed at random",
        "train": "train a network as a config says",
        "probe": "fit a linear classifier on features of a frozen network, as a config says",
        "synthesize": "train a generator of images like those of one class, and judge its samples",
        "sweep": "train variants of a config with several seeds, and compare them on validation",
        "crossval": "train a network for each fold of train, judge all out of fold, and make their ensemble",
        "evaluate": "predict a run's validation and test images, judge them, draw the figures and the report",
        "judge": "judge a predictions table made by any program",
        "compare": "compare recipes over their seeds, on the same images, with paired tests and costs",
        "explain": "show by Grad-CAM what speaks for a class, or score maps by boxes",
    },
    "Use": {
        "predict": "predict on files and folders, as a table, JSON, CSV or heat maps",
        "export": "write a trained network as a folder that works without JAX: ONNX, StableHLO, model card",
        "serve": "answer HTTP requests with the predictions of an exported network",
        "pacs": "predict new radiographs of a picture archive (PACS); store reports and heat maps there",
        "page": "write an exported network as a page that predicts in any browser, where images stay",
        "publish": "copy what shows no radiograph into a results folder, with a table of all runs",
    },
    "Speed": {
        "bench": "measure speed and memory, beside stock convolutions or PyTorch",
    },
}
"""Commands in the order of use, by what they are for; a name's module has `_` for `-`."""
