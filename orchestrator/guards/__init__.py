"""Back ends that wait for traffic to guests that sleep; the seam is `base.Guard`."""
