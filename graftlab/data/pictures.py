"""Images from files, encoded bytes or raw pixels, as 8-bit RGB.

Rotated as their EXIF says; of an animated image the first frame; integers of more bits and floats scaled
by their range; CMYK, palette and grey converted; transparency ignored, as the hub's own image sets are
read. No file runs code.
"""

import base64
import binascii
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.data.labels import Unusable
from graftlab.data.splits import digest

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    Picture = bytes | Path | np.ndarray

MAX_PIXELS = 89_478_485  # Pillow's own limit, from where it warns of a decompression bomb


def find(value: object, root: Path) -> "Picture":
    """Return the image that a cell holds: encoded bytes, a file (relative to `root`), or raw pixels.

    Cells are `{bytes, path}` as the hub has them (`bytes` raw or base64), `{shape, bytes}` with uint8
    pixels row by row, bytes, a path, or an array.

    Raises:
        Unusable: it holds none.
    """
    import numpy as np

    if isinstance(value, Mapping) and value.get("shape"):
        return _raw(value)
    if isinstance(value, Mapping):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
        if isinstance(value, str) and not Path(value).suffix:
            value = _decode_base64(value)
    if isinstance(value, str) and value:
        return root / value
    if isinstance(value, bytes):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "uif" and value.ndim in (2, 3):
        return value if value.dtype == np.uint8 else scaled(value)
    raise Unusable(f"no image but {value!r:.60}")


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Unusable("the image's bytes are not base64") from None


def _raw(value: Mapping[str, Any]) -> "np.ndarray":
    import numpy as np

    data = value["bytes"]
    data = _decode_base64(data) if isinstance(data, str) else data
    shape = tuple(value["shape"])
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise Unusable(
            f"an image of shape {shape}; (height, width) or (height, width, 3) is wanted"
        )
    if len(data) != int(np.prod(shape)):
        raise Unusable(f"{len(data)} bytes for an image of shape {shape}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def cell(picture: "Picture") -> dict[str, object]:
    """Return what JSON holds of an image, which `find` reads as the same one. `Raises:` OSError."""

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    if isinstance(picture, bytes):
        return {"bytes": text(picture)}
    if isinstance(picture, Path):
        return {"bytes": text(picture.read_bytes()), "path": picture.name}
    return {"bytes": text(picture.tobytes()), "shape": list(picture.shape)}


def content(picture: "Picture") -> bytes:
    """Return 16 bytes that stand for the image's bytes. `Raises:` Unusable, OSError."""
    if isinstance(picture, bytes):
        return digest(picture)
    if isinstance(picture, Path):
        return digest(picture.read_bytes())
    return digest(str(picture.shape), picture.tobytes())


def check(picture: "Picture") -> None:
    """Decode an image, a large JPEG at an eighth of its size: what cannot be trained on is found here.

    Raises:
        Unusable: it is no image, damaged, or too large.
    """
    if not isinstance(picture, bytes | Path):
        return
    with _open(picture) as image:
        try:
            image.verify()  # a PNG's checksums
        except Exception as error:  # Pillow's plug-ins raise whatever they meet
            raise Unusable(f"a damaged image: {error}") from None
    with _open(picture) as image:
        image.draft("RGB", (1, 1))
        _decoded(image)


def _open(picture: bytes | Path) -> "Image":
    import io

    from PIL import Image, UnidentifiedImageError

    if isinstance(picture, Path) and not picture.is_file():
        raise Unusable(f"there is no file {picture}")
    if (picture.stat().st_size if isinstance(picture, Path) else len(picture)) == 0:
        raise Unusable("an image of 0 bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise Unusable(f"an image of more than {MAX_PIXELS} pixels") from None
        except UnidentifiedImageError:
            raise Unusable("not an image that Pillow knows") from None
        except Exception as error:  # Pillow's plug-ins raise whatever they meet
            raise Unusable(f"a damaged image: {error}") from None


def decode(picture: "Picture") -> "Image":
    """Return the image as 8-bit RGB.

    Raises:
        Unusable: it is damaged.
    """
    import numpy as np
    from PIL import Image

    if isinstance(picture, np.ndarray):
        pixels = picture.squeeze(-1) if picture.ndim == 3 and picture.shape[-1] == 1 else picture
        return Image.fromarray(pixels).convert("RGB")
    with _open(picture) as opened:
        return _decoded(opened)


def _decoded(opened: "Image") -> "Image":
    import numpy as np
    from PIL import Image, ImageOps

    of_16_bits = opened.mode.startswith("I;16") or (opened.mode == "I" and opened.format == "PNG")
    try:
        opened.seek(0)
        image = ImageOps.exif_transpose(opened)
        image.load()
    except Exception as error:  # Pillow's plug-ins raise whatever they meet
        raise Unusable(f"a damaged image: {error}") from None
    if image.mode.startswith("I") or image.mode == "F":  # `convert` would clip them at 255
        pixels = np.asarray(image)
        return Image.fromarray(scaled(pixels, 16 if of_16_bits else None)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def scaled(pixels: "np.ndarray", bits: int | None = None) -> "np.ndarray":
    """Return pixels as 8-bit integers: integers by their bits, floats of 0 to 1 or of 0 to 255.

    Where the bits of integers are not said, they are the least of 8, 16 and 32 that hold the largest.

    Raises:
        Unusable: some are negative or no numbers, or floats are above 255.
    """
    import numpy as np

    low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (0.0, 0.0)
    if pixels.dtype.kind == "f":
        if not (low >= 0 and high <= 255):  # false of NaN too
            raise Unusable(
                f"floating-point pixels from {low:g} to {high:g}, not 0 to 1 or 0 to 255"
            )
        return np.rint(pixels * (255 if high <= 1 else 1)).astype(np.uint8)
    if low < 0:
        raise Unusable(f"integer pixels from {low:g} to {high:g}, not from 0")
    if bits is None:
        bits = 8 if high < 2**8 else 16 if high < 2**16 else 32
    return (pixels.astype(np.int64) >> (bits - 8)).clip(0, 255).astype(np.uint8)
