"""Scenarios: what happens to a virtual network over time, scripted or by chance, and played.

`spec` reads a file, `generate` makes the list of events of it, which a seed decides, and `play`
plays them on a back end and checks after each that all is as it should be.
"""
