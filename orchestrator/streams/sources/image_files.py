"""Decodes image files: which kinds are read, what is transparent, and what is wrong with a file."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageOps

from orchestrator.core.errors import DataError
from orchestrator.streams.sources.composition import first_of

_NOT_PICTURES = {"BUFR", "GRIB", "HDF5", "MPEG", "EPS", "WMF", "FITS"}
"""Formats that Pillow opens and cannot decode by itself, and one of measurements."""


def _readable_suffixes() -> frozenset[str]:
    Image.init()
    known = Image.registered_extensions()
    return frozenset(
        suffix for suffix, kind in known.items() if (kind in Image.OPEN or kind == "MPO") and kind not in _NOT_PICTURES
    )


SUFFIXES = _readable_suffixes()
"""Suffixes of the files that the installed Pillow decodes."""

# fmt: off
_LIKE_IMAGES = frozenset(f".{suffix}" for suffix in (
    "heic", "heif", "hif", "avif", "avifs", "jxl", "jp2", "j2k", "jpx", "svg", "svgz", "psd", "psb", "xcf", "kra",
    "ai", "eps", "ps", "wmf", "emf", "exr", "hdr", "dcm", "dicom", "raw", "cr2", "cr3", "crw", "nef", "nrw", "arw",
    "srf", "sr2", "dng", "orf", "rw2", "raf", "pef", "srw", "x3f", "3fr", "erf", "kdc", "mrw", "rwl", "iiq", "png",
    "jpg", "jpeg", "gif", "bmp", "webp", "tif", "tiff", "jxr", "wdp", "hdp", "pct", "pict",
))
# fmt: on
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_GREY, _EIGHT_BITS = {"1", "L", "LA"}, {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"}
_EIGHT_BITS |= {"La", "RGBa", "RGBX"}
_ORIENTATION, _TURNED = 0x0112, {5, 6, 7, 8}  # EXIF: how a camera was held; these swap height and width


@dataclass(frozen=True)
class Images:
    """Decoded images.

    Args:
        pixels: (N, H, W) or (N, 3, H, W) uint8.
        n_transparent: how many of them were partly or wholly transparent.
        n_with_frames: how many of them have several frames or pages, of which the first is read.
    """

    pixels: NDArray[np.uint8]
    n_transparent: int
    n_with_frames: int


@dataclass(frozen=True)
class _Header:
    """What a file says of its image before the pixels are decoded; `size` is (height, width) as it is displayed."""

    mode: str
    size: tuple[int, int]
    may_be_transparent: bool
    has_frames: bool


def is_left_out(path: Path) -> bool:
    """Return whether a file that is not read looks like an image: by its suffix, or by how it begins if it has none."""
    suffix = path.suffix.lower()
    if suffix in _LIKE_IMAGES:
        return True
    if suffix and not any(suffix.startswith(f".{known}") for known in ("jpg", "jpeg", "png", "gif", "webp", "tif")):
        return False
    try:
        with open(path, "rb") as file:
            beginning = file.read(12)
    except OSError:
        return False
    return beginning.startswith(_BEGINNINGS) or (beginning[:4] == b"RIFF" and beginning[8:] == b"WEBP")


def read_images(where: str, paths: list[Path], size: int | tuple[int, int] | None, background: str) -> Images:
    """Return the images, RGB if any file is not grey. Each file is decoded once.

    Args:
        where: the field, as messages name it.
        paths: the files.
        size: side, or (height, width), to which they are resized; None if all have one size.
        background: colour behind what is transparent.

    Raises:
        DataError: naming each file that cannot be read, or the first of another size than most.
    """
    faults: list[str] = []
    headers: list[_Header] = []
    behind = ImageColor.getrgb(background)[:3]
    for path in paths:
        try:
            header = _header(path)
        except Exception as error:  # whatever a decoder raises for bytes that it does not understand
            faults.append(_unreadable(where, path, error))
            continue
        if header.mode not in _EIGHT_BITS:
            faults.append(f"{where}: '{path}' is of mode {header.mode}, not of 8 bits per channel; convert it")
        headers.append(header)
    if faults:
        raise DataError(*first_of(iter(faults)))
    sizes = [header.size for header in headers]
    height, width = (size, size) if isinstance(size, int) else size or Counter(sizes).most_common(1)[0][0]
    if size is None:
        _refuse_sizes(where, paths, sizes, (height, width))
    has_colour = len(set(behind)) > 1
    grey = all(header.mode in _GREY and not (header.may_be_transparent and has_colour) for header in headers)
    out = np.empty((len(paths), height, width) if grey else (len(paths), 3, height, width), dtype=np.uint8)
    n_transparent = 0
    for index, path in enumerate(paths):
        try:
            pixels, is_transparent = _pixels(path, "L" if grey else "RGB", (height, width), behind)
        except Exception as error:  # as above
            faults.append(_unreadable(where, path, error))
            continue
        out[index] = pixels if grey else pixels.transpose(2, 0, 1)
        n_transparent += is_transparent
    if faults:
        raise DataError(*first_of(iter(faults)))
    return Images(out, n_transparent, sum(header.has_frames for header in headers))


def _refuse_sizes(where: str, paths: list[Path], sizes: list[tuple[int, int]], most: tuple[int, int]) -> None:
    other = next(((p, s) for p, s in zip(paths, sizes, strict=True) if s != most), None)
    if other is not None:
        raise DataError(
            f"{where}: images differ in size: '{other[0]}' is {other[1][0]} x {other[1][1]}, others {most[0]} x "
            f"{most[1]}; set image_size: {max(most)}, or [height, width]"
        )


def _header(path: Path) -> _Header:
    with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
        turned = image.getexif().get(_ORIENTATION) in _TURNED
        size = (image.width, image.height) if turned else (image.height, image.width)
        mode, may_be_transparent = image.mode, image.has_transparency_data
        has_frames = image.format not in ("MPO", "PSD") and getattr(image, "n_frames", 1) > 1
        return _Header(mode, size, may_be_transparent, has_frames)


def _pixels(
    path: Path, mode: str, size: tuple[int, int], background: tuple[int, ...]
) -> tuple[NDArray[np.uint8], bool]:
    """Return an image (H, W) or (H, W, 3) uint8, rotated by its EXIF orientation, and whether it was transparent.

    What is transparent is laid on the background before the image is resized.
    """
    with warnings.catch_warnings(action="ignore"), Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        is_transparent = False
        if image.has_transparency_data:
            layers = image.convert("RGBA")
            is_transparent = layers.getchannel("A").getextrema() != (255, 255)
            if is_transparent:
                image = Image.alpha_composite(Image.new("RGBA", layers.size, (*background, 255)), layers)
        image = image.convert(mode)
        if (image.height, image.width) != size:
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(image), is_transparent


def _unreadable(where: str, path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if path.is_file() and path.stat().st_size == 0:
        reason = "the file is empty"
    return f"{where}: the image '{path}' cannot be read ({reason}); delete or replace it"
