"""A backend of the site's own, made of ours."""

from axes_async.backends import AxesStandaloneBackend


class OwnAxesBackend(AxesStandaloneBackend):
    """Ours, under another name."""
