"""Says that the site is ready, in a box below the banners of its servers."""

import threading
import time

import requests
from django.conf import settings

from . import demo
from .celery import app
from .paths import MANAGE

_LOOK_EVERY = 0.5


def announce(url: str) -> None:
    """Print the box as soon as the site at `url` and the worker answer; does not wait for that."""
    threading.Thread(target=_print_when_ready, args=(url,), daemon=True).start()


def _print_when_ready(url: str) -> None:
    while not (_site_answers(url) and _worker_answers()):
        time.sleep(_LOOK_EVERY)
    print(box(lines(url)), flush=True)


def _site_answers(url: str) -> bool:
    try:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def _worker_answers() -> bool:
    try:
        return bool(app.control.ping(timeout=_LOOK_EVERY))
    except Exception:  # noqa: BLE001  (the broker is not there yet, and each transport says so in its own way)
        return False


def lines(url: str) -> list[str]:
    """What there is to do now."""
    told = {"Ready": url, "Login": f"{demo.USERNAME} / {demo.PASSWORD}", "Admin": f"{url}admin/"}
    if not settings.DEBUG:
        del told["Login"]
    there = "" if url == "http://127.0.0.1:8000/" else f" --url {url}"
    told |= {"Attack": f"{MANAGE} simulate_attack{there}", "Unlock": f"{MANAGE} axes_reset", "Stop": "Ctrl-C"}
    return [f"{name:<8}{text}" for name, text in told.items()]


def box(texts: list[str]) -> str:
    """`texts`, one below the other, in a frame of ASCII."""
    width = max(map(len, texts))
    edge = f"+-{'-' * width}-+"
    return "\n".join(["", edge, *(f"| {text:<{width}} |" for text in texts), edge, ""])
