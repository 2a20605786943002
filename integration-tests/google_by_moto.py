"""A stand-in for Google Cloud Storage: moto's S3 server, asked in the words of Google's XML API.

Google documents that API as that of S3 with other names for some headers, so moto does all
the work here: it keeps the objects, lists them, reads ranges, and checks conditions. This
file translates those headers, and does what moto does not: it wants a token that the service
account has signed. It is not an independent implementation of Google's API. Where Google
differs from its documentation, nobody learns it here.

Arguments: the name of a bucket that is to be there, and a directory, in which it makes
`account.json`, the service account whose tokens it accepts, and `certificate.pem`, what it
proves with that it is the one to be asked.
"""

import base64
import datetime
import ipaddress
import json
import sys
import time
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server
from werkzeug.test import Client

EMAIL = "outrigger@example.iam.gserviceaccount.com"

UNAUTHORIZED = b"""<?xml version='1.0' encoding='UTF-8'?>
<Error><Code>AuthenticationRequired</Code><Message>Authentication required.</Message></Error>"""


class Translated:
    """The application of moto, for who speaks with Google."""

    def __init__(self, moto, key):
        self.moto = moto
        self.key = key

    def __call__(self, environ, start_response):
        """Answers a request, as WSGI wants it."""
        authorization = environ.pop("HTTP_AUTHORIZATION", "")
        if not self.is_signed(authorization.removeprefix("Bearer ")):
            start_response("401 Unauthorized", [("Content-Type", "application/xml")])
            return [UNAUTHORIZED]
        # moto does not look at who signed it, but it must be there.
        environ["HTTP_AUTHORIZATION"] = "AWS outrigger:signed"
        # Not translated, so that moto ignores it and the story fails: other generations.
        if environ.get("HTTP_X_GOOG_IF_GENERATION_MATCH") == "0":
            environ["HTTP_IF_NONE_MATCH"] = "*"
        if "HTTP_X_GOOG_COPY_SOURCE" in environ:
            # moto does not look at conditions here.
            if "HTTP_IF_NONE_MATCH" in environ and self.has(environ):
                start_response("412 Precondition Failed", [])
                return [b""]
            environ["HTTP_X_AMZ_COPY_SOURCE"] = environ.pop("HTTP_X_GOOG_COPY_SOURCE")
        return self.moto(environ, start_response)

    def has(self, environ):
        """Whether the object that a request is about is there."""
        headers = {"Authorization": environ["HTTP_AUTHORIZATION"]}
        found = Client(self.moto).head(
            environ["PATH_INFO"], base_url="http://127.0.0.1", headers=headers
        )
        return found.status_code == 200

    def is_signed(self, token):
        """Whether our account has signed the token, and it is still good."""
        signed, _, signature = token.rpartition(".")
        try:
            self.key.public_key().verify(
                decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
            )
            claims = json.loads(decoded(signed.partition(".")[2]))
        except (ValueError, InvalidSignature):
            return False
        return claims["iss"] == EMAIL and claims["exp"] > time.time()


def decoded(part):
    """The bytes of a part of a token."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def private(key):
    """A key's PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def certificate(key):
    """The PEM of a certificate for this machine, signed by its own key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "storage.example")])
    now = datetime.datetime.now(datetime.UTC)
    here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([here]), critical=False)
    )
    return (
        builder.sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )


def main():
    """Listens on a port of its own, and says on which."""
    bucket, directory = sys.argv[1], Path(sys.argv[2])
    moto = DomainDispatcherApplication(create_backend_app)
    made = Client(moto).put(f"/{bucket}", base_url="http://127.0.0.1")
    if made.status_code != 200:
        sys.exit(f"make the bucket: {made.status} {made.text}")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    # It need not be another one.
    (directory / "key.pem").write_text(private(key))
    (directory / "certificate.pem").write_text(certificate(key))
    server = make_server(
        "127.0.0.1",
        0,
        Translated(moto, key),
        threaded=True,
        ssl_context=(str(directory / "certificate.pem"), str(directory / "key.pem")),
        request_handler=MotoRequestHandler,
    )
    account = {
        "private_key": private(key),
        "private_key_id": "1",
        "client_email": EMAIL,
        "gcs_base_url": f"https://127.0.0.1:{server.server_port}",
    }
    (directory / "account.json").write_text(json.dumps(account))
    server.log_startup()
    server.serve_forever()


if __name__ == "__main__":
    main()
