"""What edgewake asks of the Linux machine it runs on: devices, processes, records, consoles.

Shared by the back ends that need no libvirt (`hypervisors`, `routers`). Knows none of our nouns.
"""
