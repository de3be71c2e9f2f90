"""The servers' checks of signatures, against clients that are not Flicker's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.servers.vendors import VENDORS
from tests.servers.vendors.emulator import VendorApi

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET_KEY = "aws-secret"
TARGET = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101.LookupEvents"


@pytest.fixture
def cloudtrail() -> Iterator[VendorApi]:
    with VendorApi(VENDORS["aws-cloudtrail"]) as api:
        api.add(3)
        yield api


def _look_up(
    api: VendorApi, secret_key: str = SECRET_KEY, sent: bytes | None = None, **signed: object
) -> requests.Response:
    """Ask with a body that is signed, or with one that is not."""
    body = json.dumps(signed).encode()
    head = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": TARGET}
    request = AWSRequest("POST", f"{api.url}/", headers=head, data=body)
    SigV4Auth(Credentials("AKIDEXAMPLE", secret_key), "cloudtrail", "eu-west-1").add_auth(request)
    return requests.post(
        f"{api.url}/", sent or body, headers=dict(request.headers.items()), timeout=10
    )


def test_cloudtrail_takes_the_signature_of_the_sdk(cloudtrail: VendorApi) -> None:
    events = _look_up(cloudtrail).json()["Events"]
    keys = [json.loads(event["CloudTrailEvent"])["requestParameters"]["key"] for event in events]
    assert keys == [str(entry.serial) for entry in reversed(cloudtrail.log("eu-west-1"))]


def test_cloudtrail_refuses_another_key(cloudtrail: VendorApi) -> None:
    assert _look_up(cloudtrail, "another").status_code == 401


def test_cloudtrail_refuses_a_body_that_was_not_signed(cloudtrail: VendorApi) -> None:
    assert _look_up(cloudtrail, sent=b'{"MaxResults":50}').status_code == 401


def test_cloudtrail_takes_a_token_only_with_the_bounds_that_it_came_with(
    cloudtrail: VendorApi,
) -> None:
    token = _look_up(cloudtrail, MaxResults=2, StartTime=1).json()["NextToken"]
    again = _look_up(cloudtrail, MaxResults=2, StartTime=1, NextToken=token)
    assert "NextToken" not in again.json()
    assert _look_up(cloudtrail, MaxResults=2, StartTime=2, NextToken=token).status_code == 400
    assert _look_up(cloudtrail, MaxResults=2, NextToken=token).status_code == 400
