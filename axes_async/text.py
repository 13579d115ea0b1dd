"""Text from strangers, made safe to look at: in the admin and in logs."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return ``text`` with what cannot be seen, or moves what can, escaped as in a string literal.

    That is line breaks and other controls, marks that turn the direction of writing, and spaces that are not the space:
    with them, a name can pass for another one, or for a line of a log.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
