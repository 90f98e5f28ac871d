"""Fast placement algorithms, one file each, and their one registry."""
