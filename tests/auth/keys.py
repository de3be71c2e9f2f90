"""Keys made for the tests, once in each process."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

if TYPE_CHECKING:
    from pathlib import Path

TOKEN_URI = "https://oauth2.googleapis.com/token"


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """Give an RSA key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    """Give a key on the curve of ES256."""
    return ec.generate_private_key(ec.SECP256R1())


def pem_of(key: Any, passphrase: bytes | None = None) -> str:
    """Give a key as PEM."""
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return text.decode()


def write_service_account(directory: Path, **changes: object) -> Path:
    """Write a key file as Google makes it; None takes a member out."""
    members: dict[str, object] = {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "key-1",
        "private_key": pem_of(rsa_key()),
        "client_email": "flicker@project.iam.gserviceaccount.com",
        "token_uri": TOKEN_URI,
        **changes,
    }
    path = directory / "service-account.json"
    kept = {name: value for name, value in members.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")
    return path
