"""`cxr-jax port SOURCE OUT`: weights that timm published, a file under timm's names, or those of a run, as one file."""

from dataclasses import dataclass
from typing import Annotated

from cxr_jax.config.command_line import Positional, parse

SUMMARY = "turn timm's weights, a file of them, or a run's into one safetensors file"


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    # timm's name such as tf_efficientnetv2_s.in21k_ft_in1k (without the tag: the best), which is fetched from
    # huggingface.co; or a file under timm's names: .safetensors, or .pth, which needs torch; or the folder of a trained
    # run, whose network another run of other classes can begin with
    source: Annotated[str, Positional("SOURCE")]
    out: Annotated[str, Positional("OUT")]  # the .safetensors file to write
    architecture: str = ""  # of a file that does not say it; by default found by the names and shapes in it
    classes: int = 1000  # a classifier of another number of classes is left out
    license: str = ""  # of a file that does not say it
    replace: bool = False  # replace OUT if it exists


def main(arguments: list[str]) -> None:
    """Ports the weights that `arguments` name and says what was written; UserError for every mistake."""
    options = parse(Options, arguments, prog="cxr-jax port", description=SUMMARY)

    from cxr_jax.porting.port import check_destination, find_source, forget_download, open_source, port
    from cxr_jax.runs.files import at_home
    from cxr_jax.terminal import Terminal

    terminal = Terminal()
    out = at_home(options.out)
    # before a download of minutes
    check_destination(out, replace=options.replace)
    source = find_source(options.source)
    terminal.say(f"Fetching timm's {source.full_name}" if source.full_name else f"Reading {options.source}")
    weights = open_source(source, out, options.architecture, options.license, terminal.track)
    ported = port(weights, out, classes=options.classes, replace=options.replace)
    forget_download(source, out)
    terminal.say(f"{weights.architecture} from {weights.source} (license: {weights.license})")
    terminal.say(
        f"images: {weights.image_size} px, {weights.interpolation}, mean {_row(weights.mean)}, std {_row(weights.std)}"
    )
    terminal.say(f"{ported.parameters:,} parameters; {_classifier(ported.weights.classes, ported.dropped_classes)}")
    if ported.difference is None:
        terminal.say("not compared with timm, which is not installed or has no such network")
    else:
        terminal.say(f"same output as timm's own network, to {ported.difference:.1e} in relative norm")
    terminal.say(f"written to {out} ({ported.size / 1e6:.1f} MB, sha256 {ported.sha256})")
    terminal.say(f"to train with it: --model.name {weights.architecture} --model.weights {out}")


def _row(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _classifier(kept: int | None, dropped: int | None) -> str:
    if dropped is not None:
        return f"classifier.weight and classifier.bias left out, because they have {dropped:,} classes"
    return "no classifier in the source" if kept is None else f"classifier of {kept:,} classes kept"
