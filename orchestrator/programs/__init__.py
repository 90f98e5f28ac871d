"""Ready-made programs for routers: what can be run by name, with parameters instead of commands.

`catalogue` turns a name and parameters into an `App`. The other modules are programs of our own:
each is also a script, given to an interpreter on its standard input, and imports nothing of ours,
so that it runs as a user who can read no file of edgewake's.
"""
