"""Back ends that run guests on one edge host each; the seam is `base.Hypervisor`."""
