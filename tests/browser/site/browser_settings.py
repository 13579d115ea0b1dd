"""The example site's settings, with mail that goes to files and clients whose addresses the tests choose."""

from datetime import timedelta

from example_project.settings import *  # noqa: F403
from example_project.settings import VAR_DIR

ROOT_URLCONF = "browser_urls"
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = str(VAR_DIR / "mail")

AXES_TRUSTED_PROXIES = ["127.0.0.1"]
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_RULES = [
    {"parameters": ["username", "ip_address"], "limit": 3},
    {"parameters": "ip_address", "limit": 10},
]
AXES_UNLOCK_BY_MAIL = True
