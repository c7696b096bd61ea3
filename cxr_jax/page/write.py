"""The folder of the page, written from a bundle."""

from __future__ import annotations

import shutil
import tempfile
from importlib import resources
from pathlib import Path

import numpy as np

import cxr_jax
from cxr_jax.bundle.record import BUNDLE_FILE, CARD_FILE, ONNX_FILE, Bundle, content_of
from cxr_jax.data.phantoms import write_phantoms
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.sources.layout import PHANTOM_MARK
from cxr_jax.errors import UserError
from cxr_jax.page.record import SCHEMA_VERSION, Limits, PageFile, Phantom, page_of, told_calls
from cxr_jax.runs.files import remove, require_free, write_json, write_text, writing
from cxr_jax.runs.records import to_json
from cxr_jax.vocabulary import CLASS_NAMES, FINDINGS, PNEUMONIA

PAGE_FILE = "page.json"
INDEX_FILE = "index.html"

PHANTOM_SEED = 20_260
"""Far from the seeds that people choose, so that no network was trained on these phantoms."""

PHANTOM_SIZES = (420, 520)
"""Lowest and greatest height of a phantom, in pixels."""

VENDORED = ("onnxruntime.js", "onnxruntime.wasm", "codecs.js", "LICENSES.txt")
_PARTS = ("app", "vendor", "network", "phantoms", INDEX_FILE, "style.css", "start.js", "service-worker.js", PAGE_FILE)


def write_page(
    source: Path,
    bundle: Bundle,
    out: Path,
    *,
    name: str,
    limits: Limits,
    phantoms: int,
    replace: bool = False,
    track: Track = silently,
) -> None:
    """Writes the page of a bundle to the folder `out`, which appears when all is written.

    Args:
        source: folder of the bundle.
        bundle: what it says.
        out: the folder that is written.
        name: of the network, for people.
        limits: what radiographs are held against.
        phantoms: how many are drawn for the teaching mode; 0, or at least 6.
        replace: whether a page that stands in `out` may be replaced.
        track: shows progress.

    Raises:
        UserError: `out` holds something else, or what the page takes from npm is not at hand.
    """
    static = _static()
    require_free(out, "page", PAGE_FILE, INDEX_FILE, replace=replace)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            shutil.copytree(static / "static", folder, dirs_exist_ok=True)
            shutil.copytree(static / "vendor", folder / "vendor", ignore=shutil.ignore_patterns("MADE_FROM"))
            (folder / "network").mkdir()
            for file in (ONNX_FILE, CARD_FILE, BUNDLE_FILE):
                shutil.copyfile(source / file, folder / "network" / file)
            drawn = _draw(folder, phantoms, track) if phantoms else ()
            _render(folder / INDEX_FILE, bundle, name, phantoms)
            page = page_of(bundle, name, limits, drawn, _files(folder))
            write_json(folder / PAGE_FILE, {"schema_version": SCHEMA_VERSION, **to_json(page)})
            _put_in_place(folder, out)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _static() -> Path:
    """Returns the folder of this package; UserError unless what npm gives lies in it."""
    folder = Path(str(resources.files("cxr_jax.page")))
    if any(not (folder / "vendor" / name).is_file() for name in VENDORED):
        raise UserError(
            "the page needs onnxruntime-web, which installed packages carry and a checkout does not: run "
            "scripts/vendor_page once, which fetches it from npm"
        )
    return folder


def _put_in_place(folder: Path, out: Path) -> None:
    """Moves a finished page to its place; of an older one there, only the parts of a page are removed."""
    out.mkdir(exist_ok=True)
    # the description goes first and comes last: a folder that has it is whole
    for part in reversed(_PARTS):
        remove(out / part)
    for part in _PARTS:
        if (folder / part).exists():
            (folder / part).replace(out / part)


def _draw(folder: Path, count: int, track: Track) -> tuple[Phantom, ...]:
    """Draws phantoms into a folder, under names and in an order that tell nothing of them."""
    with tempfile.TemporaryDirectory() as drawn:
        source = Path(drawn) / "phantoms"
        write_phantoms(
            source, train=0, val=count, test=0, seed=PHANTOM_SEED, image_size_range=PHANTOM_SIZES, track=track
        )
        images = [(path, label) for label in CLASS_NAMES for path in sorted((source / "val" / label).iterdir())]
        order = np.random.default_rng(PHANTOM_SEED).permutation(len(images))
        (folder / "phantoms").mkdir()
        shutil.copyfile(source / PHANTOM_MARK, folder / "phantoms" / PHANTOM_MARK)
        phantoms = []
        for number, place in enumerate(order, 1):
            path, label = images[place]
            phantoms.append(Phantom(f"phantoms/{number:02d}.jpeg", label))
            shutil.copyfile(path, folder / phantoms[-1].file)
    return tuple(phantoms)


def _files(folder: Path) -> tuple[PageFile, ...]:
    """Returns every file of the page but its description."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    contents = [(path.relative_to(folder).as_posix(), content_of(path)) for path in paths]
    return tuple(PageFile(name, content.bytes, content.sha256) for name, content in contents)


def _render(index: Path, bundle: Bundle, name: str, phantoms: int) -> None:
    """Fills in what index.html says of the network."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, autoescape=True, keep_trailing_newline=True)
    template = environment.from_string(index.read_text(encoding="utf-8"))
    page = template.render(
        bundle=bundle,
        name=name,
        subject=_subject(bundle),
        calls=told_calls(bundle),
        phantoms=phantoms,
        version=cxr_jax.__version__,
    )
    write_text(index, page)


def _subject(bundle: Bundle) -> str:
    """Returns what the page is about, as its title begins."""
    if bundle.kind == FINDINGS:
        return "Findings"
    if bundle.network.classes == CLASS_NAMES:
        return CLASS_NAMES[PNEUMONIA].capitalize()
    *others, last = bundle.network.classes
    return f"{', '.join(others)} or {last}"
