"""Functions that sites call on django-axes' module of this name, each a few words in ours."""

from __future__ import annotations

from datetime import timedelta

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from axes_async import guard
from axes_async.client.identity import identify
from axes_async.conf import get_settings
from axes_async.conf.lockout_rules import Credentials
from axes_async.login.responses import lockout_message, lockout_response
from axes_async.login.rules_in_force import cooloffs, longest_lockout
from axes_async.login.state import AxesState
from axes_async.login.steps import mark_locked_by_site


def get_client_ip_address(request: HttpRequest) -> str | None:
    """Return the address that attempts of ``request`` are counted by, as rows show it; ``None`` without one."""
    return identify(request, None).ip_address


def get_client_username(request: HttpRequest, credentials: Credentials = None) -> str | None:
    """Return the name that is tried, as rows show it; ``None`` without one."""
    return identify(request, credentials).username


def get_client_user_agent(request: HttpRequest) -> str:
    """Return the user agent, as rows show it; '' without one."""
    return identify(request, None).user_agent


def get_client_path_info(request: HttpRequest) -> str:
    """Return the path, as rows show it."""
    return identify(request, None).path_info


def get_client_http_accept(request: HttpRequest) -> str:
    """Return the ``Accept`` header, as rows show it; '' without one."""
    return identify(request, None).http_accept


def get_cool_off(request: HttpRequest | None = None) -> timedelta | None:
    """Return the cool-off for ``request``, the longest of several rules; ``None`` where only a reset ends a lockout.

    With tiers it is that of the first one.
    """
    lasts = longest_lockout(get_settings(), request)
    return timedelta(milliseconds=lasts) if lasts else None


def get_lockout_message() -> str:
    """Return what a locked out client is told."""
    return lockout_message(permanent=None in cooloffs(get_settings()))


def get_lockout_response(
    request: HttpRequest, original_response: HttpResponseBase | None = None, credentials: Credentials = None
) -> HttpResponseBase:
    """Return the lockout response, with the time that is left; of a client that is not locked out, as if it just was.

    :param original_response: what ``AXES_LOCKOUT_CALLABLE`` is given as the view's response.
    """
    state = guard.look(request, credentials)
    if not state.denied:
        state = AxesState()
        mark_locked_by_site(state, request, credentials)
    return lockout_response(request, state, original_response)
