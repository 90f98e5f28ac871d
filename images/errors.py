"""Errors of the images package.

ImageError                an image cannot be used; the message says which and why
├── ImageNotFound         a file, or a name in the catalogue, does not exist or cannot be read
├── ImageRefused          the bytes are not what the family boots, or not what they are said to be
├── ImageDamaged          the bytes of a file are not those that its digest names
├── ImageUntrusted        a signature is missing, does not fit, or is not by a trusted key
├── ImageExists           the name is taken in the catalogue
├── DownloadFailed        an image could not be fetched over HTTP
├── CatalogError          the catalogue itself cannot be read, written or locked
└── BuildFailed           a recipe in `images.build` could not make its image
"""

from pathlib import Path


class ImageError(Exception):
    """An image cannot be used; the message names the file and what to do."""


class ImageNotFound(ImageError):  # noqa: N818 - reads as a sentence where it is raised
    """A file that the image needs, or a name in the catalogue, is not there or cannot be read."""


class ImageRefused(ImageError):  # noqa: N818 - as above
    """The bytes of the image are not what its family can boot, or not what they are said to be."""


class ImageDamaged(ImageError):  # noqa: N818 - as above
    """The bytes of a file are not those that its digest names.

    `expected` and `found` are digests written ``sha256:...``.
    """

    def __init__(self, file: Path | str, expected: str, found: str, hint: str = "") -> None:
        what = f"{file} is damaged or truncated: its digest should be {expected} and is {found}"
        super().__init__(f"{what}; {hint}" if hint else what)
        self.file = str(file)
        self.expected = expected
        self.found = found


class ImageUntrusted(ImageError):  # noqa: N818 - as above
    """A signature is missing, does not fit the bytes, or is not by a trusted key."""


class ImageExists(ImageError):  # noqa: N818 - as above
    """The name is taken in the catalogue by another image."""


class DownloadFailed(ImageError):  # noqa: N818 - as above
    """An image could not be fetched over HTTP; what has arrived is kept, to go on from there."""


class CatalogError(ImageError):
    """The catalogue itself cannot be read, written or locked."""


class BuildFailed(ImageError):  # noqa: N818 - as above
    """A build recipe could not make its image."""
