"""Attacks through what sites are built of: forms in odd charsets, views, middleware and user models of their own."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from axes_async.decorators import axes_dispatch

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]


@axes_dispatch
def guarded(request: HttpRequest) -> HttpResponse:
    """Answer without a look at what was sent."""
    return HttpResponse("seen", status=401)


urlpatterns: list[Any] = [path("guarded/", guarded)]


@pytest.mark.parametrize("charset", ["base64", "rot13", "zlib", "idna", "utf-16", "undefined"])
def test_a_form_in_a_charset_that_is_none_of_texts_is_for_the_view_to_answer(client: Client, charset: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\nalice\r\n--x--\r\n'
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    assert client.generic("POST", "/guarded/", body, content_type=kind).status_code == 401
