"""Prints what is posted to it, as a webhook to try plugins with: `python3 show_posts.py 9000`."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Show(BaseHTTPRequestHandler):
    """Takes every POST."""

    def do_POST(self) -> None:
        """Print the body, then answer."""
        length = int(self.headers.get("Content-Length", 0))
        print(self.rfile.read(length).decode("utf-8", "replace"), flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Leave out the line per request."""


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Show).serve_forever()
