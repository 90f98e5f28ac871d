"""Traffic rules: which packets are meant. One language, one tree, one meaning, many back ends.

`parse` reads a rule, `spell` writes it, `evaluate` says what it means, and `bpf`, `u32`, `nft` and
`flower` say the same to the kernel. Pure; knows no noun of ours.
"""
