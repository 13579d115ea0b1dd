"""The signals that axes_async sends. They are only defined here."""

from django.dispatch import Signal

user_locked_out = Signal()
"""An attempt has locked its client out. Sent once per lockout, in the process that served the attempt.

Arguments: ``request`` (or ``None``), ``username`` and ``ip_address`` of the attempt; ``rule``, the
``counters.rules.Rule`` that was reached, of several the one that locks for longest; ``limit``, the failures that
locked, of several limits the lowest; ``end``, when the last of the lockouts ends, ``None`` if only a reset ends it.
"""

user_unlocked = Signal()
"""A reset has lifted a lockout. Sent once per lockout, in the process that did the reset: a worker or a command.

Arguments: ``parameters``, the names of the values that the counter is made of, ``username`` and ``ip_address``. Each of
the last two is ``None`` if it is none of these values, or is not known any more.
"""
