"""Settings of a small site with axes_async as its README sets it up; PostgreSQL, or SQLite by AXES_TEST_DATABASE."""

import os

from axes_async.tasks.schedule import beat_schedule
from tests import servers

SECRET_KEY = "tests"
ALLOWED_HOSTS = ["testserver", "127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "tests.urls"
LOGIN_REDIRECT_URL = "/home/"
DATABASE = os.environ.get("AXES_TEST_DATABASE", "postgres")
DATABASES = {
    "default": servers.postgres()
    if DATABASE == "postgres"
    else {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
}
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": servers.valkey_url()},
    "memory": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "table": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache_table"},
}
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django_celery_results",
    "axes_async",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "axes_async.middleware.AxesMiddleware",
]
AUTHENTICATION_BACKENDS = [
    "axes_async.backends.AxesStandaloneBackend",
    "tests.site.CountingBackend",
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
CELERY_BROKER_URL = servers.valkey_url(1)
CELERY_RESULT_BACKEND = "django-db"
CELERY_BEAT_SCHEDULE = beat_schedule()
