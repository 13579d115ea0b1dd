"""What may need a person, each as a sentence.

Mails and commands have it in English, the admin in its reader's language.
"""

from __future__ import annotations

from django.utils.translation import gettext_noop as _

STORE_AWAY = _("The store cannot be reached: %(error)s")
DATABASE_AWAY = _("The database cannot be read: %(error)s")
BROKER_AWAY = _("The broker takes no messages: %(error)s")
INCOMPLETE = _("The store is not complete: the database decides each login until a worker, or axes_sync, syncs them.")
EVENTS_WAIT = _("Events wait since %(time)s: is a worker running, and beat?")
DEAD_LETTERS = _("%(number)s events could not be written: manage.py axes_dead_letters shows them.")
OVERFLOW = _("%(number)s events found no room in the outbox and are lost: see AXES_OUTBOX_MAX.")
EXPIRED_STAY = _("Expired attempts are not removed: is beat running, with the entries of beat_schedule()?")
BEAT_SILENT = _("Beat has been silent since %(time)s: is it running, and a worker?")
