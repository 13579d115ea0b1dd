"""A site to log in to, guess passwords at and be locked out of. Not part of the installed package."""

from .celery import app as celery_app

__all__ = ["celery_app"]
