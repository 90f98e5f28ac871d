"""The rows of the model: one module per concern, one function per family, opened by its formula.

Every function takes the `placement.model.Model` and adds rows to its builder. The judge in
`placement.check` shares none of this.
"""
