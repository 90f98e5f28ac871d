"""The HTTP front door: the REST API and, later, the dashboard."""
