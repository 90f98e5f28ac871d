"""The anytime ladder: a plan at once, better ones as long as there is time, and always a bound.

`climb` yields one `Step` per better plan or bound; `ladder` is the algorithm of that name, the last
step. `moves` and `simple` work without a solver, `relaxing` and `prices` give LP and bound,
`neighbourhoods` the search around a plan.
"""
