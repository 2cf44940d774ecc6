"""The worker's phone page: static files that speak the JSON API like any other client."""
