"""The one error of the Xen test bed."""


class BedError(Exception):
    """The bed cannot be built, started, reached or stopped; the text says why and what to do."""
