"""A site with ``USE_TZ = False``: its times are naive, and those of a zone that is not UTC."""
