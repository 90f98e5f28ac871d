"""What is this image, and how does it boot? A pure library without libvirt."""
