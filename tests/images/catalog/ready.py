"""What tests of the catalogue do most: take an image out of it."""

from images.bootspec import Image, Platform
from images.catalog import Catalog, Entry


def ready(catalog: Catalog, entry: Entry | str, platform: Platform | None = None) -> Image:
    """Return a verified image: the only flavour there is, or the only one for a platform."""
    ref = entry if isinstance(entry, str) else entry.ref
    (found,) = [
        each
        for each in catalog.fetch(Image(ref, catalog=ref))
        if platform is None or platform in each.platforms
    ]
    return found.ready()
