"""Credentials onto requests: static headers, tokens that expire, signatures.

Light to import, since signers of one's own import it too; what each way of
authentication needs is loaded by `shared` where a source asks for it.
"""

from __future__ import annotations

from flicker.auth.authenticator import Authenticator, SigningRequest

__all__ = ["Authenticator", "SigningRequest"]
