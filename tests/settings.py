"""Settings of a small site with axes_async as its README sets it up.

AXES_TEST_DATABASE is "postgres" (if not set), "sqlite" or "mysql", which is a MariaDB where one is installed.
"""

import os

from axes_async.tasks.schedule import beat_schedule
from tests import servers, system

SECRET_KEY = "tests"
ALLOWED_HOSTS = ["testserver", "127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "tests.urls"
LOGIN_REDIRECT_URL = "/home/"
DATABASE = os.environ.get("AXES_TEST_DATABASE", "postgres")
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
MADE = {"postgres": servers.postgres, "sqlite": SQLITE.copy, "mysql": lambda: system.mariadb() or SQLITE.copy()}
DATABASES = {"default": MADE[DATABASE]()}
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
AXES_TEST_STORE = "cache"  # Our own tests want the real store.
CELERY_BEAT_SCHEDULE = beat_schedule()
# A busy machine is slow; what is tested of a store that does not answer sets a time of its own.
AXES_STORE_TIMEOUT = 10
