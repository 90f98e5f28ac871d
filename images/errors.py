"""Errors of the images package.

ImageError                an image cannot be used; the message says which and why
├── ImageNotFound         a file the image needs does not exist or cannot be read
├── ImageRefused          the bytes are not what the family boots
└── BuildFailed           a recipe in `images.build` could not make its image
"""


class ImageError(Exception):
    """An image cannot be used; the message names the file and what to do."""


class ImageNotFound(ImageError):  # noqa: N818 - reads as a sentence where it is raised
    """A file that the image needs does not exist or cannot be read."""


class ImageRefused(ImageError):  # noqa: N818 - as above
    """The bytes of the image are not what its family can boot."""


class BuildFailed(ImageError):  # noqa: N818 - as above
    """A build recipe could not make its image."""
