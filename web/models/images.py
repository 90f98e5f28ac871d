"""Images: what there is to boot."""

from web.models.base import Document


class Catalog(Document):
    """The names in the catalogue of all images that the lab has from there."""

    catalog: list[str]
