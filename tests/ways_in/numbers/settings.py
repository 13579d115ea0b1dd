"""The test site's settings with usernames that are numbers, and with all that looks for the account of a name."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

ROOT_URLCONF = "tests.attacks.standing_site"
INSTALLED_APPS = ["tests.ways_in.numbers", *(app for app in INSTALLED_APPS if app != "django.contrib.admin")]
AUTH_USER_MODEL = "numbers.Customer"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AXES_LOCKOUT_RULES = [{"parameters": ["username"], "limit": 3}]
AXES_NOTIFY = ["ops@example.com"]
AXES_NOTIFY_OWNER = True
AXES_UNLOCK_BY_MAIL = True
AXES_UNLOCK_ON_PASSWORD_RESET = True
