"""Images from files, encoded bytes or raw pixels, as 8-bit RGB.

Rotated as their EXIF says; of an animated image the first frame; 16-bit grey scaled to 8; CMYK, palette
and grey converted; transparency ignored, as the hub's own image sets are read. No file runs code.
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


def find(value: Any, root: Path) -> "Picture":
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
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (2, 3):
        return value
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


def content(picture: "Picture") -> bytes:
    """Return 16 bytes that stand for the image's bytes. `Raises:` Unusable, OSError."""
    if isinstance(picture, bytes):
        return digest(picture)
    if isinstance(picture, Path):
        return digest(picture.read_bytes())
    return digest(str(picture.shape), picture.tobytes())


def check(picture: "Picture") -> None:
    """Read an image's header (and a PNG's checksums), without decoding its pixels.

    Raises:
        Unusable: it is no image, damaged, or too large.
    """
    if isinstance(picture, bytes | Path):
        with _open(picture) as image:
            try:
                image.verify()
            except Exception as error:  # Pillow's plug-ins raise whatever they meet
                raise Unusable(f"a damaged image: {error}") from None


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
    from PIL import Image, ImageOps

    if isinstance(picture, np.ndarray):
        pixels = picture.squeeze(-1) if picture.ndim == 3 and picture.shape[-1] == 1 else picture
        return Image.fromarray(pixels).convert("RGB")
    with _open(picture) as opened:
        try:
            opened.seek(0)
            image = ImageOps.exif_transpose(opened)
            image.load()
        except Exception as error:  # Pillow's plug-ins raise whatever they meet
            raise Unusable(f"a damaged image: {error}") from None
    if image.mode.startswith("I"):  # 16-bit grey; `convert` would clip it at 255
        pixels = np.asarray(image).astype(np.int64)
        return Image.fromarray((pixels >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise Unusable("an image of floating-point pixels, whose range is not known")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
