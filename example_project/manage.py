"""Runs a management command of the site: `python example_project/manage.py COMMAND`."""

import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command on the command line; settings that cannot be used end it with one plain line."""
    # Python puts this folder on the path, where celery.py would hide Celery: the repository root takes its place.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"The settings cannot be used: {error}")


if __name__ == "__main__":
    main()
