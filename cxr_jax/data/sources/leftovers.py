"""Files and folders that are never radiographs to learn from: what systems leave behind, thumbnails and lung masks."""

from __future__ import annotations

import re

HIDDEN = "hidden"
SYSTEM = "left behind by an operating system or another program"
THUMBNAILS = "thumbnails"
BIN = "thrown away, in a recycle bin or a snapshot"
MASKS = "masks, not radiographs"

_NAMES = {
    **dict.fromkeys(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "lost+found", "dicomdir"), SYSTEM),
    **dict.fromkeys(("system volume information", "temporary items", "@tmp", "@sharebin", "@database"), SYSTEM),
    **dict.fromkeys(("@eadir", ".@__thumb", "@__thumb", "thumbnail", "thumbnails", "thumbs"), THUMBNAILS),
    **dict.fromkeys(("#recycle", "@recycle", "$recycle.bin", "recycler", "recycled", "network trash folder"), BIN),
    **dict.fromkeys(("#snapshot", "@recently-snapshot", "@snapshot"), BIN),
}
_MACOS = re.compile(r"_+macosx", re.IGNORECASE)
_UNFINISHED = ("~", ".bak", ".old", ".orig", ".tmp", ".part", ".crdownload", ".swp")
_THUMBNAIL = re.compile(r"synofile_thumb_.*", re.IGNORECASE)
_MASK_FOLDER = re.compile(r"(?:.*[^a-z])?(?:(?:lung)?masks?|segmentations?|ground[ _-]?truths?)(?:[^a-z].*)?", re.I)
_MASK_FILE = re.compile(r"(.+?)[ _.-](?:lung[ _-]?)?masks?", re.IGNORECASE)


def leftover(name: str, *, is_file: bool = False) -> str | None:
    """Returns why a file or folder of this name is passed over with its content; None if it is not."""
    known = _NAMES.get(name.lower())
    if known:
        return known
    if name.startswith("."):
        return HIDDEN
    if _MACOS.fullmatch(name) or (is_file and name.lower().endswith(_UNFINISHED)):
        return SYSTEM
    return THUMBNAILS if _THUMBNAIL.fullmatch(name) else None


def names_masks(folder: str) -> bool:
    """Returns True for the name of a folder that holds masks, such as `masks`, `lung masks` or `Ground-truths`."""
    return _MASK_FOLDER.fullmatch(folder) is not None


def masked_image(stem: str) -> str | None:
    """Returns the name of the image, without suffix, of which file `stem` is the mask; None if it is no mask."""
    match = _MASK_FILE.fullmatch(stem)
    return match[1] if match else None
