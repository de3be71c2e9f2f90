"""An object store that speaks S3; the only importer of boto3.

Nothing here retries for long: whoever asks knows how long it may take.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from contextlib import closing, suppress
from email.utils import parsedate_to_datetime
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import boto3
import botocore.session
from botocore import exceptions as boto
from botocore.config import Config
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from flicker.errors import RegistryError
from flicker.outbox import origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from flicker.registry.location import S3Location

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 10.0
"""Longest silence of the store."""

PAUSES_S = (0.5, 1.5)
"""Between tries of what has to succeed before anything else can."""

CHUNK_BYTES = 1024 * 1024

OFFSET_S = 60.0
"""How long a difference between the store's clock and ours is believed."""

# Not just any 404: a proxy's own would pass for a registry that does not exist yet.
_MISSING = frozenset({"NoSuchKey", "NoSuchVersion"})
_CONFLICTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})
_BAD_CREDENTIALS = frozenset(
    {
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_OTHER_REGION = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
    }
)
_REDIRECTS = frozenset({"301", "302", "303", "307", "308"})
"""What botocore makes of redirects that are not S3's."""

_BAD_NAMES = frozenset({"InvalidBucketName"})
_SKEWED = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_BUSY = frozenset(
    {"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling"}
)
_PROFILE_NAMES = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")

_LOGINS = ("Assume", "GetRole", "GetSession", "GetFederation", "CreateToken")
"""How operations begin that get credentials, and are not S3's."""

_WRONG_CREDENTIALS = (
    boto.ConfigParseError,
    boto.CredentialRetrievalError,
    boto.InvalidConfigError,
    boto.MetadataRetrievalError,
    boto.RefreshWithMFAUnsupportedError,
    boto.SSOError,
    boto.UnknownCredentialError,
)
_FAILURES = (
    boto.BotoCoreError,
    boto.ClientError,
    HTTPError,
    OSError,
    ResponseParserError,
    RuntimeError,
    ValueError,
)
"""All that a request can end with."""

_UNTOLD = re.compile(r"[^A-Za-z0-9._-]+")

_FORBIDDEN, _NOT_FOUND, _NOT_IMPLEMENTED, _TOO_MANY, _SERVER_ERROR = 403, 404, 501, 429, 500


class StoreError(RegistryError):
    """The store refuses, and a human has to change something."""


class StoreAwayError(RegistryError):
    """The store cannot be reached, or cannot answer now; later it may."""


class ConflictError(RegistryError):
    """A conditional write found something else than it was to replace."""


class Stored(NamedTuple):
    """An object as it was read.

    Attributes:
        data: Its content.
        etag: Without quotes, which is the form that every store takes back.
        read_at: The store's own time of the answer, in seconds since 1970.
    """

    data: bytes
    etag: str
    read_at: float


class S3Store:
    """One bucket, and the credentials that boto3 finds for it.

    Credentials, region and endpoint come from where boto3 looks for them;
    `AWS_REGION` counts like `AWS_DEFAULT_REGION`, and
    `AWS_S3_FORCE_PATH_STYLE=true` puts the bucket into the path. Safe for
    concurrent use.

    Args:
        location: The registry, for its bucket and for messages.
        environ: The environment.
        patience_s: Longest silence of the store, if less than usual.

    Raises:
        RegistryError: Credentials, profile or endpoint cannot be used.
    """

    def __init__(
        self,
        location: S3Location,
        environ: Mapping[str, str] = os.environ,
        patience_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._location = location
        self._offset_s: float | None = None
        self._offset_at = 0.0
        style = {}
        forced = environ.get("AWS_S3_FORCE_PATH_STYLE", "").strip().lower()
        if forced in {"1", "true", "yes"}:
            style = {"addressing_style": "path"}
        elif forced not in {"", "0", "false", "no"}:
            raise StoreError(f"AWS_S3_FORCE_PATH_STYLE must be true or false, not {forced!r}")
        # Checksums beyond the signature are newer than many stores.
        config = Config(
            connect_timeout=min(CONNECT_TIMEOUT_S, patience_s),
            read_timeout=min(READ_TIMEOUT_S, patience_s),
            retries={"mode": "standard", "total_max_attempts": 1},
            s3=style,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self._endpoint = "S3"
        with warnings.catch_warnings():
            # About Python versions that boto3 will not support for long.
            warnings.simplefilter("ignore")
            try:
                # An empty variable, as Compose files make them, is none.
                region = environ.get("AWS_REGION") or None
                names = [name for name in _PROFILE_NAMES if environ.get(name)] or None
                core = botocore.session.Session({"profile": (None, names, None, None)})
                session = boto3.session.Session(botocore_session=core, region_name=region)
                self._credentials = self._load(session.get_credentials)
                self._client = session.client("s3", config=config)
                self._endpoint = origin(self._client.meta.endpoint_url)
            except _FAILURES as error:
                raise self._explain(error, "s3:GetObject") from None

    def _load(self, do: Callable[[], T]) -> T:
        """Load credentials: that reads files and runs programs, and may raise anything."""
        try:
            return do()
        except (boto.BotoCoreError, boto.ClientError) as error:
            raise self._explain(error, "s3:GetObject") from None
        except Exception as error:  # noqa: BLE001 - such as AttributeError, of JSON that is a list
            name = getattr(error, "filename", None)
            which = f"{type(error).__name__}: {name}" if name else type(error).__name__
            message = (
                f"the registry {self._location} cannot be used: the AWS credentials could not be "
                f"loaded ({which}). Check the profile, the role and what AWS_* variables name"
            )
            raise StoreError(message) from None

    @property
    def now(self) -> float:
        """The store's time in seconds since 1970, as its answers told it.

        Instances may have clocks that differ; they all have this one.
        """
        return time.time() if self._offset_s is None else steady_s() + self._offset_s

    def get(self, key: str) -> Stored | None:
        """Read an object.

        Returns:
            None where there is none.

        Raises:
            StoreError, StoreAwayError: It cannot be told.
        """

        def read() -> Stored | None:
            try:
                answer = self._client.get_object(Bucket=self._location.bucket, Key=key)
            except boto.ClientError as error:
                if _code_of(error) in _MISSING:
                    self._note_date(error.response)
                    return None
                raise
            self._note_date(answer)
            with closing(answer["Body"]) as body:
                return Stored(body.read(), _etag_of(answer), _date_of(answer) or self.now)

        return self._call("s3:GetObject", read)

    def download(self, key: str, path: Path) -> str | None:
        """Read an object into a file.

        Returns:
            The SHA-256 of what was read, in hexadecimal; None where there is
            no such object.

        Raises:
            StoreError, StoreAwayError: It could not be read whole.
            OSError: The file cannot be written.
        """

        def open_body() -> Any:
            try:
                answer = self._client.get_object(Bucket=self._location.bucket, Key=key)
            except boto.ClientError as error:
                if _code_of(error) in _MISSING:
                    return None
                raise
            try:
                _etag_of(answer)
            except ResponseParserError:
                answer["Body"].close()
                raise
            return answer["Body"]

        opened = self._call("s3:GetObject", open_body)
        if opened is None:
            return None
        digest = sha256()
        with closing(opened) as body, path.open("wb") as file:
            # Errors of the file stay outside of `_call`: they are not the store's.
            while chunk := self._call("s3:GetObject", lambda: bytes(body.read(CHUNK_BYTES))):
                digest.update(chunk)
                file.write(chunk)
        return digest.hexdigest()

    def put(
        self, key: str, data: bytes | Path, *, if_match: str | None = None, if_absent: bool = False
    ) -> str:
        """Write an object whole.

        Args:
            key: Of the object.
            data: Its content, or the file that has it.
            if_match: Only if the object there has this entity tag.
            if_absent: Only if there is no object.

        Returns:
            The entity tag of what was written.

        Raises:
            ConflictError: The condition does not hold.
            StoreError, StoreAwayError: It was not written, or nobody knows.
            OSError: The file cannot be read.
        """
        conditions: dict[str, str] = {}
        if if_match is not None:
            conditions["IfMatch"] = if_match
        if if_absent:
            conditions["IfNoneMatch"] = "*"

        def write(body: Any, facts: dict[str, str]) -> str:
            answer = self._client.put_object(
                Bucket=self._location.bucket, Key=key, Body=body, **facts, **conditions
            )
            self._note_date(answer)
            return _etag_of(answer)

        if isinstance(data, bytes):
            facts = {"ContentType": "application/json"}
            do = partial(write, data, facts)
            return self._call("s3:PutObject", do, is_conditional=bool(conditions))
        with data.open("rb") as file:
            do = partial(write, file, {})
            return self._call("s3:PutObject", do, is_conditional=bool(conditions))

    def delete(self, key: str) -> None:
        """Delete an object, if there is one.

        Raises:
            StoreError, StoreAwayError: It may still be there.
        """
        self._call(
            "s3:DeleteObject",
            lambda: self._client.delete_object(Bucket=self._location.bucket, Key=key),
        )

    def list_keys(self, prefix: str) -> list[str]:
        """List the keys that begin with a prefix.

        Raises:
            StoreError, StoreAwayError: They cannot be listed.
        """

        def read() -> list[str]:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._location.bucket, Prefix=prefix
            )
            return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

        return self._call("s3:ListBucket", read)

    def _call(self, action: str, do: Callable[[], T], *, is_conditional: bool = False) -> T:
        if self._credentials is not None:
            # Here, as what comes of it could not be told from other troubles
            # of a request. The request finds them fresh.
            self._load(self._credentials.get_frozen_credentials)
        try:
            return do()
        except RecursionError:
            # Where a server redirects all that it is asked, botocore asks it
            # where the bucket is, again and again.
            raise self._explain_redirect() from None
        except _FAILURES as error:
            if isinstance(error, boto.ClientError):
                code, status = _code_of(error), _status_of(error)
                self._note_date(error.response)
                # Where If-Match finds no object at all, S3 says so by 404.
                if is_conditional and (code in _CONFLICTS or code in _MISSING):
                    raise ConflictError(f"{self._location} was changed by somebody else") from None
                if is_conditional and status == _NOT_IMPLEMENTED:
                    message = (
                        f"the registry {self._location} cannot be used: {self._endpoint} refuses "
                        "conditional writes. Use a store that honours them"
                    )
                    raise UnconditionalStoreError(message) from None
            raise self._explain(error, action) from None

    def _note_date(self, answer: Any) -> None:
        date = _date_of(answer)
        if date is not None:
            # Dates are cut to seconds and then travel, so each is too early:
            # the greatest difference of the last while is the nearest.
            now_s = steady_s()
            offset_s = date - now_s
            is_old = now_s - self._offset_at > OFFSET_S
            if self._offset_s is None or is_old or offset_s > self._offset_s:
                self._offset_s, self._offset_at = offset_s, now_s

    def _explain(self, error: Exception, action: str) -> RegistryError:
        """Say in one line what is wrong, and what to do; never what was sent."""
        prefix = f"the registry {self._location} cannot be used: "
        if isinstance(error, boto.ClientError):
            return self._explain_answer(error, action, prefix)
        credentials = self._explain_credentials(error, prefix)
        if credentials is not None:
            return credentials
        if isinstance(error, boto.SSLError) and "CERTIFICATE_VERIFY_FAILED" not in str(error):
            return StoreAwayError(
                f"{prefix}{self._endpoint} does not speak TLS as it should. Check AWS_ENDPOINT_URL"
            )
        if isinstance(error, boto.SSLError):
            return StoreAwayError(
                f"{prefix}{self._endpoint} has a certificate that is not trusted here. Name the "
                "authority's certificate in AWS_CA_BUNDLE"
            )
        if isinstance(error, boto.ParamValidationError):
            return StoreError(
                f"{prefix}{self._location.bucket!r} cannot be the name of a bucket. Correct "
                "--registry-file"
            )
        if isinstance(error, ResponseParserError):
            return StoreAwayError(
                f"{prefix}{self._endpoint} does not answer as S3 does. Check AWS_ENDPOINT_URL, and "
                "what stands between here and the store"
            )
        # An AWS_REGION that is none is an error of botocore's and a ValueError as well.
        if isinstance(error, (ValueError, boto.EndpointProviderError)):
            return StoreError(f"{prefix}AWS_ENDPOINT_URL or AWS_REGION cannot be read. Correct it")
        kind = type(error).__name__
        return StoreAwayError(
            f"{prefix}{self._endpoint} cannot be reached ({kind}). Check AWS_ENDPOINT_URL, the "
            "network and the store"
        )

    def _explain_credentials(
        self, error: Exception, prefix: str
    ) -> StoreError | StoreAwayError | None:
        """Say why there are no credentials, if that is it."""
        if isinstance(
            error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.NoAuthTokenError)
        ):
            return StoreError(
                f"{prefix}no AWS credentials were found. Set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
            )
        if isinstance(error, boto.ProfileNotFound):
            return StoreError(f"{prefix}there is no profile of the name that AWS_PROFILE has")
        if isinstance(error, _WRONG_CREDENTIALS):
            return StoreError(
                f"{prefix}the AWS credentials could not be loaded ({type(error).__name__}). Check "
                "the profile, the role and the files that AWS_* variables name"
            )
        asked = str(getattr(error, "kwargs", {}).get("endpoint_url") or "")
        if asked and origin(asked) != self._endpoint and "://" in self._endpoint:
            # Whom temporary credentials are got from.
            return StoreAwayError(
                f"{prefix}the AWS credentials could not be loaded, since {origin(asked)} cannot be "
                f"reached ({type(error).__name__}). Check the network and the role"
            )
        return None

    def _explain_answer(
        self, error: boto.ClientError, action: str, prefix: str
    ) -> StoreError | StoreAwayError:
        code, status = _code_of(error), _status_of(error)
        if error.operation_name.startswith(_LOGINS):
            if status is None or status >= _TOO_MANY:
                return StoreAwayError(
                    f"{prefix}the AWS credentials could not be loaded now ({error.operation_name}: "
                    f"{code}, status {status}). Try again later"
                )
            return StoreError(
                f"{prefix}the AWS credentials could not be loaded ({error.operation_name}: {code})."
                " Check the role, who may assume it, and the profile"
            )
        place = self._explain_place(error, prefix)
        if place is not None:
            return place
        if code in _SKEWED:
            date = _date_of(error.response)
            ahead_s = round(time.time() - date) if date is not None else None
            off = "" if ahead_s is None else f" ({ahead_s:+d} s from the store's)"
            return StoreError(f"{prefix}this machine's clock is wrong{off}. Set it, as by NTP")
        if code in _BAD_CREDENTIALS:
            return StoreError(
                f"{prefix}{self._endpoint} refuses the AWS credentials ({code}). Check "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile or role"
            )
        if code in _EXPIRED:
            return StoreError(f"{prefix}the AWS credentials have expired ({code}). Renew them")
        if status == _FORBIDDEN:
            more = (
                ". Without s3:ListBucket on the bucket, S3 answers so for objects that do not exist"
                if action == "s3:GetObject"
                else ""
            )
            return StoreError(
                f"{prefix}no permission for {action} ({code}). Allow {action} on "
                f"{'the bucket' if action == 's3:ListBucket' else 'the registry and its .d/'}"
                f" for the credentials in use{more}"
            )
        if code in _BUSY or status in {None, _TOO_MANY} or (status or 0) >= _SERVER_ERROR:
            return StoreAwayError(
                f"{prefix}{self._endpoint} cannot answer now ({code}, status {status}). Try again "
                "later"
            )
        if status == _NOT_FOUND:
            return StoreError(
                f"{prefix}{self._endpoint} does not answer as S3 does (status 404). Check "
                "AWS_ENDPOINT_URL, and what stands between here and the store"
            )
        return StoreError(
            f"{prefix}{self._endpoint} refuses {action} ({code}, status {status}). Check the "
            "bucket's settings"
        )

    def _explain_place(self, error: boto.ClientError, prefix: str) -> StoreError | None:
        """Say what is wrong with where the bucket is thought to be, if that is it."""
        code, bucket = _code_of(error), self._location.bucket
        if code in _BAD_NAMES:
            return StoreError(
                f"{prefix}{bucket!r} cannot be the name of a bucket. Correct --registry-file"
            )
        if code == "NoSuchBucket":
            return StoreError(
                f"{prefix}there is no bucket {bucket!r} at {self._endpoint}. Create it, or "
                "correct --registry-file, AWS_REGION or AWS_ENDPOINT_URL"
            )
        if code in _REDIRECTS:
            return self._explain_redirect()
        if code in _OTHER_REGION:
            headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
            region = error.response["Error"].get("Region") or headers.get("x-amz-bucket-region")
            region = _UNTOLD.sub("", region or "")
            return StoreError(
                f"{prefix}the bucket {bucket!r} is in another region. Set AWS_REGION"
                + (f"={region}" if region else " to its own")
            )
        return None

    def _explain_redirect(self) -> StoreError:
        return StoreError(
            f"the registry {self._location} cannot be used: {self._endpoint} redirects elsewhere. "
            "Correct AWS_ENDPOINT_URL (it may have to say https://), or AWS_REGION"
        )


class UnconditionalStoreError(StoreError):
    """The store knows no conditional writes, and says so."""


def honours_conditions(store: S3Store, key: str) -> bool:
    """Find out whether the store minds the conditions of writes.

    Some stores ignore them and overwrite, so it has to be tried.

    Args:
        store: The store.
        key: Of an object that does not exist, to try it with; it is deleted
            afterwards.

    Raises:
        StoreError, StoreAwayError: It cannot be tried.
    """
    try:
        etag = store.put(key, b"1", if_absent=True)
        with suppress(ConflictError):
            store.put(key, b"2", if_absent=True)
            return False
        store.put(key, b"3", if_match=etag)
        with suppress(ConflictError):
            store.put(key, b"4", if_match=etag)
            return False
    except (ConflictError, UnconditionalStoreError):
        return False
    else:
        return True
    finally:
        # Where that fails it stays and takes room only; the verdict stands, and
        # an error from above is the one to tell.
        with suppress(RegistryError):
            store.delete(key)


def patiently(do: Callable[[], T]) -> T:
    """Ask a store, and ask again a few times where it is away for a moment.

    Raises:
        StoreAwayError: It stays away.
    """
    for pause_s in PAUSES_S:
        try:
            return do()
        except StoreAwayError:
            time.sleep(pause_s)
    return do()


def steady_s() -> float:
    """Give seconds on a clock that nobody sets, and that runs in suspended machines."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def _code_of(error: boto.ClientError) -> str:
    # The store's text, or whoever's answers for it: it goes into a message.
    return _UNTOLD.sub("", str(error.response.get("Error", {}).get("Code", "")))[:64]


def _status_of(error: boto.ClientError) -> int | None:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def _date_of(answer: Any) -> float | None:
    text = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None


def _etag_of(answer: Any) -> str:
    etag = str(answer.get("ETag", "")).strip('"')
    if not etag:
        # A page of a proxy's or a portal's, with status 200.
        raise ResponseParserError("there is no ETag")
    return etag
