"""Measured against claimed."""

from orchestrator.measured import CLAIMS
from web.api.context import Context
from web.api.operation import Api
from web.models.measured import ClaimDocument, MeasuredDocument, MeasuredImageDocument


def add(api: Api, context: Context) -> None:
    """Add what guests are measured to be."""

    @api.get("/measured", MeasuredDocument)
    def measured() -> MeasuredDocument:
        """Return size, memory, idle processor time and boot time by image, beside the claims."""
        return MeasuredDocument(
            claims=[ClaimDocument.of(each) for each in CLAIMS],
            images=[MeasuredImageDocument.of(each) for each in context.control.measured()],
        )
