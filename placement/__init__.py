"""Where should each service run? A pure library: a `Problem` in, a `Plan` out."""
