"""The TCP front of the API and of the dashboard: who may come in, and what is passed on.

It runs as a child process of `edgewake up` (`web.door.process` is the parent's side of it) and asks
the daemon everything through its UNIX socket, with the caller's name and role in two headers. So
what browsers do takes nothing of the daemon's interpreter, which answers DNS.
"""
