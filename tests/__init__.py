"""The tests, and the small site that they log in to."""

from tests.celery import app as celery_app

__all__ = ["celery_app"]
