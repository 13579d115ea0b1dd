"""`manage.py serve`: Django's development server, with room for a crowd at the door."""

from django.contrib.staticfiles.management.commands.runserver import Command as RunserverCommand
from django.core.servers.basehttp import WSGIServer


class Server(WSGIServer):
    """One thread for each request, as in runserver, which turns away connections when more than 10 come at once."""

    request_queue_size = 1024


class Command(RunserverCommand):
    """Runserver with a longer queue of connections."""

    help = "Runs the site on Django's development server, ready for many connections at once."
    server_cls = Server
