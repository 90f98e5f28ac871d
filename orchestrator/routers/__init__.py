"""Virtual routers and links: one seam, back ends behind it."""
