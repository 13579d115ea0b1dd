"""The settings of the site. Every value that differs between a demo, a test and a server comes from the environment."""

import ssl
from datetime import timedelta
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from axes_async.tasks.schedule import beat_schedule
from example_project import env
from example_project.paths import REDIS_URL_FILE, VAR_DIR

_DEMO_KEY = "demo-only-key-that-everyone-can-read"
DEBUG = env.flag("DJANGO_DEBUG", default=True)
SECRET_KEY = env.text("DJANGO_SECRET_KEY", _DEMO_KEY)
if SECRET_KEY == _DEMO_KEY and not DEBUG:
    raise ImproperlyConfigured("With DJANGO_DEBUG off, the environment variable DJANGO_SECRET_KEY must be set.")
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_celery_results",
    "axes_async",
    "example_project",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "example_project.policy.ContentSecurityPolicyMiddleware",
    "axes_async.middleware.AxesMiddleware",
]

AUTHENTICATION_BACKENDS = [
    "axes_async.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "home"

ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
ASGI_APPLICATION = "example_project.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).resolve().parent / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": env.database("DATABASE_URL", default=VAR_DIR / "db.sqlite3")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"

_valkey = f"redis://127.0.0.1:{env.positive_integer('VALKEY_PORT', default=6379)}/0"
REDIS_URL = env.redis_url(
    "REDIS_URL", default=REDIS_URL_FILE.read_text().strip() if REDIS_URL_FILE.exists() else _valkey
)
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}

# The broker has the next database of the same server: clearing Django's cache empties the cache's whole database,
# and must not take queued tasks with it.
CELERY_BROKER_URL = env.redis_url("CELERY_BROKER_URL", default=env.next_database(REDIS_URL))
if CELERY_BROKER_URL.startswith("rediss://"):
    CELERY_BROKER_USE_SSL = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_RESULT_BACKEND = "django-db"
CELERY_RESULT_EXTENDED = True
CELERY_TIMEZONE = TIME_ZONE
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR_DIR / "celerybeat-schedule")
CELERY_BEAT_SCHEDULE = beat_schedule(
    drain_every=env.seconds("AXES_DRAIN_EVERY") or 5,
    expire_every=env.seconds("AXES_EXPIRE_EVERY") or 60,
)

AXES_CACHE = "default"
AXES_FAILURE_LIMIT = env.positive_integer("AXES_FAILURE_LIMIT", default=3)
# Not set: a lockout stays until `manage.py axes_reset` lifts it.
_cooloff = env.seconds("AXES_COOLOFF_SECONDS")
AXES_COOLOFF_TIME = None if _cooloff is None else timedelta(seconds=_cooloff)
