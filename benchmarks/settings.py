"""Settings of one small site, without any protection (``BENCH_SITE=bare``) or with that of one package.

Everything else is the same: sessions in memory, a password check that costs nothing, so that the difference of
two sites is what the package costs.
"""

import json
import os

from benchmarks import servers

SITE = os.environ.get("BENCH_SITE", "axes_async")
LIMIT = int(os.environ.get("BENCH_LIMIT", "5"))
COOLOFF_HOURS = 1

SECRET_KEY = "benchmarks"
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "benchmarks.site"
DATABASES = {"default": servers.database()}
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": servers.redis_url()},
    "sessions": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
}
SESSION_ENGINE, SESSION_CACHE_ALIAS = "django.contrib.sessions.backends.cache", "sessions"
LOGGING = {"version": 1, "handlers": {"null": {"class": "logging.NullHandler"}}, "root": {"handlers": ["null"]}}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
AUTHENTICATION_BACKENDS = ["benchmarks.site.KnownPassword"]
CELERY_BROKER_URL = os.environ.get("BENCH_BROKER") or servers.redis_url(1)
CELERY_WORKER_HIJACK_ROOT_LOGGER = False


def protect(app: str, **backend_and_middleware: str) -> None:
    """Install ``app`` as its documentation says: backend first, middleware last."""
    INSTALLED_APPS.append(app)
    AUTHENTICATION_BACKENDS[:0] = [backend_and_middleware["backend"]] if "backend" in backend_and_middleware else []
    MIDDLEWARE.extend([backend_and_middleware["middleware"]] if "middleware" in backend_and_middleware else [])


if SITE == "axes_async":
    protect(
        "axes_async",
        backend="axes_async.backends.AxesStandaloneBackend",
        middleware="axes_async.middleware.AxesMiddleware",
    )
    AXES_FAILURE_LIMIT, AXES_COOLOFF_TIME = LIMIT, COOLOFF_HOURS
    AXES_STORE_TIMEOUT = 5.0  # A machine that is busy with something else is to give a figure, not a fault.
elif SITE in {"axes_database", "axes_cache"}:
    protect("axes", backend="axes.backends.AxesStandaloneBackend", middleware="axes.middleware.AxesMiddleware")
    AXES_FAILURE_LIMIT, AXES_COOLOFF_TIME = LIMIT, COOLOFF_HOURS
    kind = SITE.removeprefix("axes_")
    AXES_HANDLER = f"axes.handlers.{kind}.Axes{kind.title()}Handler"
    AXES_VERBOSE = False
elif SITE == "defender":
    protect("defender")
    DEFENDER_REDIS_URL = servers.redis_url()
    DEFENDER_LOGIN_FAILURE_LIMIT, DEFENDER_COOLOFF_TIME = LIMIT, COOLOFF_HOURS * 3600
elif SITE == "two_gets":
    AUTHENTICATION_BACKENDS.insert(0, "benchmarks.site.RoundTrip")
elif SITE != "bare":
    raise ValueError(f"BENCH_SITE is {SITE!r}, which is none of the sites.")

for _name, _value in json.loads(os.environ.get("BENCH_SETTINGS", "{}")).items():
    globals()[_name] = _value
