"""An auth module of the site's own, as sites have that do not log in through `django.contrib.auth.authenticate`.

It checks passwords and keeps sessions by itself, and tells the rest of the site by Django's three signals: that is all
that a lockout needs of it.
"""

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest
from django.middleware.csrf import rotate_token
from django.utils.crypto import constant_time_compare
from django.views.decorators.debug import sensitive_variables

# Later requests get their user from this backend; it must stand in AUTHENTICATION_BACKENDS.
_BACKEND = "django.contrib.auth.backends.ModelBackend"


@sensitive_variables("password")
def custom_authenticate(request: HttpRequest, username: str, password: str) -> User | None:
    """The active user of this name and password, or None; None is reported as a failed login.

    It takes as long for a name that nobody has: the time of an answer does not tell which names exist.
    """
    user = User.objects.filter(username=username).first()
    if user is None:
        User().set_password(password)
    elif user.check_password(password) and user.is_active:
        return user
    report_failure(request, username)
    return None


def report_failure(request: HttpRequest, username: str | None) -> None:
    """Send `user_login_failed`; `username` is None when the client named nobody."""
    user_login_failed.send(sender=__name__, credentials={"username": username}, request=request)


def custom_login(request: HttpRequest, user: User) -> None:
    """Make `user` the user of this session and send `user_logged_in`.

    The session gets a new key, so that a key which someone planted before the login opens nothing (session fixation);
    one that was another user's is emptied first.
    """
    session = request.session
    user_hash = user.get_session_auth_hash()
    same_user = session.get(SESSION_KEY) == str(user.pk) and constant_time_compare(
        session.get(HASH_SESSION_KEY, ""), user_hash
    )
    if SESSION_KEY in session and not same_user:
        session.flush()
    session.cycle_key()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = _BACKEND
    session[HASH_SESSION_KEY] = user_hash
    request.user = user
    rotate_token(request)
    user_logged_in.send(sender=user.__class__, request=request, user=user)


def custom_logout(request: HttpRequest) -> None:
    """Send `user_logged_out`, while the session still says who it is, and empty the session."""
    user = request.user if request.user.is_authenticated else None
    user_logged_out.send(sender=user.__class__, request=request, user=user)
    request.session.flush()
    request.user = AnonymousUser()
