"""`python -m orchestrator` is `edgewake`."""

from orchestrator.cli import main

main()
