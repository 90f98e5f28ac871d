"""Named, content-addressed images in a folder: an OCI image layout that any OCI tool can read.

`Catalog` is the way in. `store` says what is on disk, `sources` and `packages` what can be added,
`blobs` how bytes are verified, `trust` whose images are taken.
"""

from images.catalog.adding import Adding, Guard
from images.catalog.blobs import Progress
from images.catalog.catalog import Catalog
from images.catalog.config import ImageConfig
from images.catalog.entry import Entry, Fetched, Flavour, Layer, Role
from images.catalog.minisign import PublicKey, keys_of
from images.catalog.sources import Part
from images.catalog.upkeep import Damage, Removed

__all__ = [
    "Adding",
    "Catalog",
    "Damage",
    "Entry",
    "Fetched",
    "Flavour",
    "Guard",
    "ImageConfig",
    "Layer",
    "Part",
    "Progress",
    "PublicKey",
    "Removed",
    "Role",
    "keys_of",
]
