"""The signals that axes_async sends; defined here, sent and received elsewhere."""

from django.dispatch import Signal

user_locked_out = Signal()
"""A counter has reached its limit. Once per lockout, in the process that served the attempt.

Arguments: ``request`` (or ``None``), ``username`` and ``ip_address`` of the attempt that set the lockout.
"""

user_unlocked = Signal()
"""A lockout was lifted by a reset. Once per lockout, in the process that applied the reset: a worker or a command.

Arguments: ``parameters``, the names that the counter is made of, and ``username`` and ``ip_address``, each ``None``
where the counter does not depend on it or the value is not known any more.
"""
