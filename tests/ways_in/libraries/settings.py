"""The test site's settings, with each library added as its documentation says."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS, MIDDLEWARE

SECRET_KEY = "tests of the ways in, with a key that is long enough to sign tokens"
ROOT_URLCONF = "tests.ways_in.libraries.urls"
INSTALLED_APPS = [*INSTALLED_APPS, "rest_framework", "rest_framework.authtoken", "allauth", "allauth.account"]
MIDDLEWARE = [*MIDDLEWARE[:-1], "allauth.account.middleware.AccountMiddleware", MIDDLEWARE[-1]]
AUTHENTICATION_BACKENDS = [
    "axes_async.backends.AxesStandaloneBackend",
    "tests.site.CountingBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_RATE_LIMITS = {"login_failed": False}
