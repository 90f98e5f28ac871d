"""The documents of the API as pydantic models: what comes in is validated, what goes out described.

A document is made of a noun of ours by its `of`. Keys carry their units as the nouns do. Clients
must ignore keys that they do not know.
"""
