"""Recipes that make an image on this machine from public packages."""
