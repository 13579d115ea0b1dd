"""The test site's settings with a user model of the site's own, in an app before all others."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

ROOT_URLCONF = "tests.ways_in.own_user.urls"
INSTALLED_APPS = ["tests.ways_in.own_user", *INSTALLED_APPS]
AUTH_USER_MODEL = "own_user.Member"
AUTHENTICATION_BACKENDS = [
    "tests.ways_in.own_user.backends.OwnAxesBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AXES_LOCKOUT_PARAMETERS = ["username"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
