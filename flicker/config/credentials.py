"""The shape of a source's credentials that are more than a header."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, WithJsonSchema, model_validator

from flicker.auth.plugin import SignerError, load_signer
from flicker.config.checks import expand_home, file_problem, header_value_problem, url_problem
from flicker.config.fields import (
    GIVEN,
    Entry,
    ParamValue,
    Text,
    Url,
    must_pass,
    wrong,
)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")

_OWN_PARAMS = frozenset(
    {
        "grant_type",
        "client_id",
        "client_secret",
        "refresh_token",
        "scope",
        "audience",
        "assertion",
        "client_assertion",
        "client_assertion_type",
    }
)
_MAX_KEY_BYTES = 1 << 20
_KEY_FILE_TEXTS = ("client_email", "private_key", "token_uri")


def key_problem(pem: str) -> str | None:
    """Check a private key in PEM."""
    # It takes a tenth of a second to load, which other configurations do without.
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_pem_private_key,
    )

    if "-----BEGIN" not in pem:
        return "is no private key in PEM, which begins with `-----BEGIN`: give the whole text"
    try:
        load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        return "is protected by a passphrase, which Flicker has none for: give the key without one"
    except (ValueError, UnsupportedAlgorithm):
        return (
            "is no private key in PEM that can be read: give it whole, line breaks included, and"
            " no certificate or public key"
        )
    return None


def key_path_problem(text: str) -> str | None:
    """Check the path of a file with a private key in PEM."""
    return _content_problem(text, key_problem)


def key_file_problem(text: str) -> str | None:
    """Check the path of the JSON that Google gives for a service account."""
    return _content_problem(text, _service_account_problem)


def _content_problem(path: str, check: Any) -> str | None:
    problem = file_problem(path)
    if problem is not None:
        return problem
    try:
        found: str | None = check(read_key(path))
    except UnicodeDecodeError:
        found = "is no text"
    return None if found is None else f"names a file whose content {found}"


def read_key(path: str) -> str:
    """Read a file with a key, or the start of one that is too large to be a key.

    Raises:
        UnicodeDecodeError: It is no text.
    """
    with expand_home(path).open("rb") as stream:
        return stream.read(_MAX_KEY_BYTES).decode()


def _service_account_problem(text: str) -> str | None:
    try:
        account = json.loads(text)
    except (ValueError, RecursionError):
        return "is no JSON: give the key file that Google made for the service account"
    members = account if isinstance(account, dict) else {}
    missing = [name for name in _KEY_FILE_TEXTS if not isinstance(members.get(name), str)]
    if missing:
        return f"has no {missing[0]}: give the key file that Google made for the service account"
    if url_problem(members["token_uri"]):
        return "has a token_uri that is no URL"
    problem = key_problem(members["private_key"])
    return None if problem is None else f"has a private_key that {problem}"


def signer_problem(name: str) -> str | None:
    """Check the name of a signer, by loading it."""
    try:
        load_signer(name)
    except SignerError as error:
        return str(error)
    return None


def pem_of(text: str) -> str:
    r"""Read a PEM with its line breaks written as `\n`, as variables often have it."""
    return text.replace("\\n", "\n")


def _pem_problem(text: str) -> str | None:
    return key_problem(pem_of(text))


SecretText = Annotated[SecretStr, Field(min_length=1), must_pass(header_value_problem)]
PrivateKey = Annotated[SecretStr, must_pass(_pem_problem)]
Options = dict[str, ParamValue]


def _check_extra(extra: Options | None) -> None:
    own = next((name for name in extra or {} if name in _OWN_PARAMS), None)
    if own is not None:
        raise wrong(f"has in `extra` the parameter {own}, which has a key of its own: use that")


class OAuth2Entry(Entry):
    """A token asked for with the client's own credentials, or a refresh token."""

    token_url: Url = Field(description="Absolute URL that gives tokens.")
    grant_type: Literal["client_credentials", "refresh_token", "account_credentials"] = Field(
        default="client_credentials", description="What the token is given for."
    )
    client_id: Text = Field(description="The client's id.")
    client_secret: Annotated[SecretText | None, GIVEN] = Field(
        default=None, description="The client's secret."
    )
    refresh_token: Annotated[SecretText | None, GIVEN] = Field(
        default=None, description="For the grant of that name."
    )
    scope: Text | None = Field(default=None, description="Scopes, with a space between two.")
    audience: Text | None = Field(default=None, description="What API the token is for.")
    extra: Options | None = Field(
        default=None, description="Further parameters of the token request."
    )
    auth_style: Literal["body", "basic"] = Field(
        default="body", description="Whether id and secret stand in the body or in HTTP Basic."
    )
    body_format: Literal["form", "json"] = Field(
        default="form", description="How the token request is written."
    )

    @model_validator(mode="after")
    def _is_complete(self) -> OAuth2Entry:
        _check_extra(self.extra)
        is_refresh = self.grant_type == "refresh_token"
        if is_refresh and self.refresh_token is None:
            raise wrong("has the grant refresh_token and no `refresh_token`: add it")
        if not is_refresh and self.refresh_token is not None:
            raise wrong(
                "has a `refresh_token`, which this grant does not use: remove it, or set"
                " `grant_type` to refresh_token"
            )
        if self.grant_type == "account_credentials" and "account_id" not in (self.extra or {}):
            raise wrong("has the grant account_credentials: add `account_id` to `extra`")
        if self.auth_style == "basic" and self.client_secret is None:
            raise wrong("has `auth_style` basic and no `client_secret`: add it")
        return self


class JwtBearerEntry(Entry):
    """A token asked for with an assertion that a private key signs."""

    token_url: Url | None = Field(
        default=None, description="Absolute URL that gives tokens; not needed with `key_file`."
    )
    issuer: Text | None = Field(
        default=None, description="Who asks; not needed with `key_file` or `client_id`."
    )
    subject: Text | None = Field(default=None, description="On whose behalf it asks.")
    audience: Text | None = Field(
        default=None, description="Whom the assertion is for, by default `token_url`."
    )
    scope: Text | None = Field(default=None, description="Scopes, with a space between two.")
    private_key: Annotated[PrivateKey | None, GIVEN] = Field(
        default=None, description="The private key in PEM."
    )
    private_key_path: Annotated[Text, must_pass(key_path_problem)] | None = Field(
        default=None, description="File with the private key in PEM."
    )
    key_file: Annotated[Text, must_pass(key_file_problem)] | None = Field(
        default=None, description="Key file of a Google service account, in JSON."
    )
    key_id: Text | None = Field(default=None, description="Names the key in the assertion.")
    algorithm: Literal[ALGORITHMS] = Field(  # type: ignore[valid-type]
        default="RS256", description="How the assertion is signed."
    )
    style: Literal["grant", "client_assertion"] = Field(
        default="grant", description="What the assertion stands for."
    )
    client_id: Text | None = Field(default=None, description="For `client_assertion`: its client.")
    extra: Options | None = Field(
        default=None, description="Further parameters of the token request."
    )

    @model_validator(mode="after")
    def _is_complete(self) -> JwtBearerEntry:
        _check_extra(self.extra)
        keys = (self.private_key, self.private_key_path, self.key_file)
        if sum(key is not None for key in keys) != 1:
            raise wrong("needs one of `private_key`, `private_key_path` and `key_file`")
        if self.key_file is None and self.token_url is None:
            raise wrong("needs `token_url`, unless it has a `key_file`")
        if self.style == "client_assertion" and self.client_id is None:
            raise wrong("has the style client_assertion and no `client_id`: add it")
        if self.style == "grant" and self.client_id is not None:
            raise wrong("has a `client_id`, which only the style client_assertion uses: remove it")
        if self.issuer is None and self.client_id is None and self.key_file is None:
            raise wrong("needs `issuer`, unless it has a `key_file` or a `client_id`")
        self._check_algorithm()
        return self

    def _check_algorithm(self) -> None:
        import jwt  # noqa: PLC0415 - for the reason above

        try:
            jwt.encode({}, self.pem(), algorithm=self.algorithm)
        except Exception:  # noqa: BLE001 - of several libraries, and their texts may quote the key
            problem = True
        else:
            problem = False
        if problem:
            raise wrong(
                f"has a key that {self.algorithm} does not sign with: set `algorithm` to what the"
                " key is for (RS and PS: RSA, ES: elliptic curve)"
            )

    def account(self) -> dict[str, str]:
        """Read the service account's file; empty where there is none."""
        found: dict[str, str] = {} if self.key_file is None else json.loads(read_key(self.key_file))
        return found

    def pem(self) -> str:
        """Give the key from wherever it is."""
        if self.private_key is not None:
            return pem_of(self.private_key.get_secret_value())
        if self.private_key_path is not None:
            return read_key(self.private_key_path)
        return self.account()["private_key"]


class AwsSigV4Entry(Entry):
    """Signatures of AWS, version 4."""

    service: Text = Field(description="Name that AWS signs the service with, such as cloudtrail.")
    region: Text = Field(description="Region, such as us-east-1.")
    profile: Text | None = Field(
        default=None, description="Profile of the AWS configuration files; by default AWS_PROFILE."
    )


SignerName = Annotated[
    Text, must_pass(signer_problem), WithJsonSchema({"type": "string", "minLength": 1})
]
