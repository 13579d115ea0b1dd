"""What stands for a request of the site's login form where nobody has sent one."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from urllib.parse import urlencode, urlsplit

from django.conf import settings as django_settings
from django.core.handlers.wsgi import WSGIRequest
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch

from axes_async.conf import get_settings


def login_request(ip: str | None, *, agent: str | None = None, fields: Mapping[str, str] | None = None) -> WSGIRequest:
    """Return a ``POST`` of ``fields`` to the login page, from an address and with a user agent if they are given."""
    try:
        path = resolve_url("admin:login" if get_settings().only_admin_site else django_settings.LOGIN_URL)
    except NoReverseMatch:
        path = "/"
    body = urlencode(fields or {}).encode()
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": urlsplit(path).path or "/",
        "REMOTE_ADDR": ip or "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "CONTENT_TYPE": "application/x-www-form-urlencoded",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body),
    }
    if agent is not None:
        environ["HTTP_USER_AGENT"] = agent
    return WSGIRequest(environ)
