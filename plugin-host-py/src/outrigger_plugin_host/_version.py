"""Which version of the package is this?"""

VERSION = "0.1.0"
PROTOCOL = 2
"""Version of the protocol in proto/outrigger/plugin/v1 that this package speaks."""
