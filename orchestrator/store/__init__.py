"""Back ends that keep our state; the seam is `base.Store`."""
