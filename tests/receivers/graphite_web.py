"""Serves Debian's Graphite-Web on a loopback port with the standard library alone: no other web server has to be installed.

usage: graphite_web.py PORT SETTINGS_FOLDER (holds local_settings.py). Debian's own Python must run it: the graphite module is
installed for that one only. An empty database is filled with the tables it needs first.
"""

import os
import socketserver
import sys
from wsgiref import simple_server


class Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    """One thread a request, because Carbon registers tags while a test is reading."""

    daemon_threads = True


class QuietHandler(simple_server.WSGIRequestHandler):
    """Says nothing for each request."""

    def log_message(self, *_):
        pass


def main():
    port, settings_folder = int(sys.argv[1]), sys.argv[2]
    sys.path.insert(0, settings_folder)
    os.environ["DJANGO_SETTINGS_MODULE"] = "graphite.settings"
    os.environ["GRAPHITE_SETTINGS_MODULE"] = "local_settings"
    import django
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application

    django.setup()
    call_command("migrate", run_syncdb=True, interactive=False, verbosity=0)
    application = get_wsgi_application()
    simple_server.make_server("127.0.0.1", port, application, Server, QuietHandler).serve_forever()


main()
