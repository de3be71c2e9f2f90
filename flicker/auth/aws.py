"""AWS Signature Version 4; loads boto3, which takes half a second.

S3 is not meant here: its signatures have rules of their own.
"""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore import exceptions as boto
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from flicker.errors import HumanNeededError, RetryableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flicker.auth.authenticator import SigningRequest
    from flicker.settings import AwsSigV4

_UNREADY = (boto.BotoCoreError, boto.ClientError, RuntimeError, OSError, ValueError)
_INCOMPLETE = (boto.NoCredentialsError, boto.PartialCredentialsError, boto.NoAuthTokenError)


class AwsSigner:
    """Signs requests with the credentials that AWS tools would find.

    They are looked for at each request, since roles hand out new ones.

    Args:
        settings: What was configured.
    """

    def __init__(self, settings: AwsSigV4) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._credentials: Any = None
        self._secrets: list[str] = []

    def headers(self, request: SigningRequest) -> dict[str, str]:
        """Give the signature's headers, over what AWS looks at and no proxy changes."""
        signed = AWSRequest(
            method=request.method,
            url=request.url,
            headers={
                name: value
                for name, value in request.headers.items()
                if name.lower() == "content-type" or name.lower().startswith("x-amz-")
            },
            data=request.body or b"",
        )
        before = set(signed.headers.keys())
        try:
            credentials = self._frozen()
        except boto.ProfileNotFound:
            message = (
                "the AWS credentials cannot be found: there is no such profile. Check"
                " aws_sigv4.profile and the file of profiles"
            )
            raise HumanNeededError(message) from None
        except _INCOMPLETE:
            message = (
                "the AWS credentials are incomplete. Set AWS_ACCESS_KEY_ID and"
                " AWS_SECRET_ACCESS_KEY together, or mend the profile"
            )
            raise HumanNeededError(message) from None
        except _UNREADY as error:
            message = (
                f"the AWS credentials cannot be loaded or refreshed ({type(error).__name__})."
                " Check the role and the profile if that stays so"
            )
            raise RetryableError(message) from None
        SigV4Auth(credentials, self._settings.service, self._settings.region).add_auth(signed)
        return {name: signed.headers[name] for name in signed.headers if name not in before}

    def renew(self, refused: Mapping[str, str]) -> bool:
        """Leave it: the library renews credentials in time."""
        del refused
        return False

    def secrets(self) -> list[str]:
        """Give the secret parts of the credentials in use."""
        return self._secrets

    def _frozen(self) -> Any:
        with self._lock:
            if self._credentials is None:
                self._credentials = self._find()
            frozen = self._credentials.get_frozen_credentials()
        self._secrets = [text for text in (frozen.secret_key, frozen.token) if text]
        return frozen

    def _find(self) -> Any:
        with warnings.catch_warnings():
            # About Python versions that boto3 will not support for long.
            warnings.simplefilter("ignore")
            core = botocore.session.Session(profile=self._settings.profile)
            credentials = boto3.session.Session(botocore_session=core).get_credentials()
        if credentials is None:
            message = (
                "there are no AWS credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
                " or give aws_sigv4.profile, or run where a role is attached"
            )
            raise HumanNeededError(message)
        return credentials
