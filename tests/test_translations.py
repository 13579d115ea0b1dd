"""The words in other languages: none missing, none stale, and told to those who ask for them."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from gettext import GNUTranslations, c2py
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.contrib.auth.models import User
from django.test import AsyncClient, Client
from django.utils.translation import override

Post = Callable[..., Any]
PACKAGE = Path(__file__).resolve().parent.parent / "axes_async"
LANGUAGES = ["ar", "de", "es", "fa", "fr", "id", "it", "ja", "nl", "pl", "pt_BR", "ru", "tr", "zh_Hans"]
LATER = "Too many failed login attempts. Please try again later."
SAME = {"Axes", "Dashboard", "HTTP accept", "No", "Status", "agent", "dashboard", "user agent"}
"""What some languages say in the same words."""


def catalogue(language: str) -> dict[str, str]:
    """Return what the ``.po`` file says: each message and its translation, the header under ''."""
    text = (PACKAGE / "locale" / language / "LC_MESSAGES" / "django.po").read_text(encoding="utf-8")
    strings = r'((?:"(?:[^"\\]|\\.)*"\s*)+)'
    found = re.findall(rf"^msgid {strings}^msgstr {strings}", text, re.MULTILINE)
    assert len(found) == text.count("\nmsgid "), "an entry that is more than a message and its translation"
    return {joined(msgid): joined(msgstr) for msgid, msgstr in found}


def joined(literals: str) -> str:
    return "".join(ast.literal_eval(line) for line in literals.split("\n") if line.strip())


def compiled(language: str) -> GNUTranslations:
    with (PACKAGE / "locale" / language / "LC_MESSAGES" / "django.mo").open("rb") as file:
        return GNUTranslations(file)


def messages() -> set[str]:
    """Return every text in the package that is marked for translation."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
                (text,) = node.args
                assert isinstance(text, ast.Constant), f"{path.name} marks what is no text: {ast.dump(text)}"
                found.add(text.value)
    for path in (PACKAGE / "templates").rglob("*.*"):
        template = path.read_text(encoding="utf-8")
        found |= set(re.findall(r'{% translate "([^"]+)"', template))
        for text in re.findall(r"{% blocktranslate [^%]*%}(.*?){% endblocktranslate %}", template):
            found.add(re.sub(r"{{ (\w+) }}", r"%(\1)s", text))
    return found


def test_every_language_is_there() -> None:
    assert sorted(path.name for path in (PACKAGE / "locale").iterdir()) == LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_message_is_translated_and_no_other_one_is_left_over(language: str) -> None:
    translated = catalogue(language)
    assert set(translated) - {""} == messages()
    assert [msgid for msgid, msgstr in translated.items() if not msgstr.strip()] == []
    assert {msgid for msgid, msgstr in translated.items() if msgid == msgstr} <= SAME


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_compiled_is_what_is_written(language: str) -> None:
    written, known = catalogue(language), compiled(language)
    header = written.pop("")
    assert {msgid: known.gettext(msgid) for msgid in written} == written
    assert len(known._catalog) == len(written) + 1
    assert known.info()["plural-forms"] in header


@pytest.mark.parametrize("language", LANGUAGES)
def test_placeholders_and_full_stops_are_kept(language: str) -> None:
    for msgid, msgstr in catalogue(language).items():
        if msgid:
            assert re.findall(r"%\S", msgstr) == re.findall(r"%\S", msgid)
            assert msgstr.endswith((".", "。")) is msgid.endswith(".")
            assert msgstr == msgstr.strip()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_header_names_the_language_and_a_rule_for_plurals(language: str) -> None:
    info = compiled(language).info()
    assert (info["language"], info["content-type"]) == (language, "text/plain; charset=UTF-8")
    count, rule = re.fullmatch(r"nplurals=(\d); plural=(.+);", info["plural-forms"]).groups()  # type: ignore[union-attr]
    assert {c2py(rule)(number) for number in (*range(200), 1_000_000)} <= set(range(int(count)))


@pytest.fixture
def speaking(settings: Any) -> None:
    """Have the site follow ``Accept-Language``."""
    settings.MIDDLEWARE = ["django.middleware.locale.LocaleMiddleware", *settings.MIDDLEWARE]
    settings.AXES_COOLOFF_TIME = 1


@pytest.mark.django_db
@pytest.mark.usefixtures("speaking")
class TestTold:
    """What clients and operators see."""

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_a_locked_out_client_is_told_in_its_language(self, post: Post, language: str) -> None:
        tag = language.replace("_", "-")
        responses = [post(HTTP_ACCEPT_LANGUAGE=tag) for _ in range(3)]
        assert responses[-1].content.decode() == catalogue(language)[LATER]
        told = post(HTTP_ACCEPT_LANGUAGE=tag, HTTP_ACCEPT="application/json").json()["message"]
        assert told == catalogue(language)[LATER]

    def test_whoever_asks_for_another_language_is_told_in_the_sites(self, post: Post) -> None:
        assert [post(HTTP_ACCEPT_LANGUAGE="eo") for _ in range(3)][-1].content.decode() == LATER

    @pytest.mark.parametrize("own", [{}, {"AXES_LOCKOUT_TEMPLATE": "registration/logged_out.html"}], ids=str)
    def test_async_views_tell_it_in_the_clients_language_too(self, settings: Any, own: dict[str, str]) -> None:
        for name, value in own.items():
            setattr(settings, name, value)

        async def last() -> Any:
            client, form = AsyncClient(), {"username": "alice", "password": "wrong"}
            headers = {"Accept-Language": "de"}
            return [await client.post("/async-sign-in/", form, headers=headers) for _ in range(3)][-1]

        page = async_to_sync(last)().content.decode()
        assert ('lang="de"' if own else catalogue("de")[LATER]) in page

    def test_the_admin_speaks_the_operators_language(self, post: Post, drain: Callable[[], int]) -> None:
        post()
        drain()
        client = Client(HTTP_ACCEPT_LANGUAGE="de")
        client.force_login(User.objects.create_superuser("root"), "tests.site.CountingBackend")
        page = client.get("/admin/axes_async/accessattempt/").content.decode()
        for word in ("Anmeldeversuche", "Benutzername", "Gesperrt", "Läuft ab am"):
            assert word in page

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_rows_and_their_fields_have_names_in_every_language(self, language: str) -> None:
        with override(language.replace("_", "-").lower()):
            times = dict.fromkeys(("accessattempt", "accesslog", "accessfailurelog"), "attempt_time")
            for name, time in {**times, "accessreset": "reset_time"}.items():
                model = apps.get_model("axes_async", name)
                shown = [model._meta.verbose_name, model._meta.get_field(time).verbose_name]
                assert not {str(text) for text in shown} & set(catalogue(language))
