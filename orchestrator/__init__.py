"""edgewake's own nouns, seams and use-cases; see docs/design.md for who may import whom."""
