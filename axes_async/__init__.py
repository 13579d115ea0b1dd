"""Exact login lockouts for Django, decided in Redis or Valkey and recorded through Celery."""

__version__ = "0.1.0"
