"""Back ends that lead clients to instances; the seam is `base.Steering`."""
