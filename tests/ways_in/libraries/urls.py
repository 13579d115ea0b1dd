"""The ways in that each library brings, and a view behind them."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import authenticate, login
from django.http import HttpRequest
from django.urls import include, path
from ninja import NinjaAPI, Schema
from ninja.errors import HttpError
from rest_framework.authentication import BasicAuthentication, SessionAuthentication, TokenAuthentication
from rest_framework.authtoken.views import obtain_auth_token
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.views import TokenObtainPairView

from axes_async import guard

SEEN: list[tuple[Any, Any]] = []
"""What ``guess`` has seen: ``locked_out`` on the wrapped request, and on the one inside."""


class Me(APIView):
    """Tells who is asking, once they have shown it in one of four ways."""

    authentication_classes = (BasicAuthentication, TokenAuthentication, JWTAuthentication, SessionAuthentication)
    permission_classes = (IsAuthenticated,)

    def get(self, request: Request) -> Response:
        return Response({"username": request.user.get_username()})


class Guess(APIView):
    """Checks a password in the view, and looks at the lock."""

    authentication_classes = ()
    permission_classes = ()

    def post(self, request: Request) -> Response:
        user = authenticate(request, username=request.data["username"], password=request.data["password"])
        SEEN.append((request.axes.locked_out, request._request.axes.locked_out))
        return Response({"right": user is not None})


class Guarded(APIView):
    """Checks a password of its own, and lets the refusal fall through."""

    authentication_classes = ()
    permission_classes = ()

    def post(self, request: Request) -> Response:
        with guard.attempt(request, {"username": request.data["username"]}) as attempt:
            attempt.failed()
        return Response({"detail": "wrong"}, status=401)


class Credentials(Schema):
    """The body of a login."""

    username: str
    password: str


api = NinjaAPI()


@api.post("/login")
def ninja_login(request: HttpRequest, body: Credentials) -> dict[str, str]:
    """Log in."""
    user = authenticate(request, username=body.username, password=body.password)
    if user is None:
        raise HttpError(401, "wrong")
    login(request, user)
    return {"username": user.get_username()}


urlpatterns = [
    path("rest/me/", Me.as_view()),
    path("rest/guess/", Guess.as_view()),
    path("rest/guarded/", Guarded.as_view()),
    path("rest/token/", obtain_auth_token),
    path("rest/session/", include("rest_framework.urls")),
    path("jwt/", TokenObtainPairView.as_view()),
    path("accounts/", include("allauth.urls")),
    path("ninja/", api.urls),
]
