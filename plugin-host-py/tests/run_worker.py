"""How do tests run a worker whose Flight socket is another one?"""

from __future__ import annotations

import os
import sys

from fake_server import TOKEN

from outrigger_plugin_host._child import prepare
from outrigger_plugin_host._flight import FlightFetch
from outrigger_plugin_host._worker import Worker

if __name__ == "__main__":
    prepare()
    code = Worker(sys.argv[1], TOKEN, FlightFetch(sys.argv[2])).run()
    sys.stderr.flush()
    os._exit(code)
