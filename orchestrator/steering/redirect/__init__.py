"""Steers traffic for an address that belongs elsewhere into an instance here; seam: `base`."""
