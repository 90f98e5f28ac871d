"""Images."""

from web.api.context import Context
from web.api.operation import Api
from web.models.base import Named
from web.models.images import ImageDocument, ImagesDocument


def add(api: Api, context: Context) -> None:
    """Add what is told of images."""
    control = context.control

    @api.get("/images", ImagesDocument, etag=True)
    def images() -> ImagesDocument:
        """Return the images that the lab has: what they are, who uses them, where they run."""
        known = [ImageDocument.of(each) for each in control.images.all()]
        return ImagesDocument(catalog=sorted({each.catalog for each in known} - {""}), images=known)

    @api.get("/images/<name>", ImageDocument, etag=True)
    def image(path: Named) -> ImageDocument:
        """Return one image."""
        return ImageDocument.of(control.images.image(path.name))
