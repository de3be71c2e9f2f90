"""A signer of one's own: a function that gives each request its headers."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

from flicker.errors import HumanNeededError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flicker.auth.authenticator import SigningRequest
    from flicker.settings import Signer

    SignerFunction = Callable[[SigningRequest, Mapping[str, str]], Any]

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*\Z")
_LINE = re.compile(r"[\x20-\x7e\x80-\xff]*\Z")


class SignerError(ValueError):
    """A signer that cannot be loaded; the message goes after the name of the key."""


def load_signer(name: str) -> SignerFunction:
    """Load the function that `package.module:function` names.

    Raises:
        SignerError: There is none; nothing of the name or of an error's text
            is in the message.
    """
    if not _NAME.match(name):
        message = "must be `package.module:function`"
        raise SignerError(message)
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            message = (
                "names a module that Python does not find: install it, or name its directory in"
                " PYTHONPATH"
            )
        else:
            message = "names a module that imports another one that Python does not find"
    except Exception as error:  # noqa: BLE001 - what a module does when it is loaded is its own
        message = f"names a module that fails when it is loaded ({type(error).__name__})"
    else:
        function = getattr(module, function_name, None)
        if callable(function):
            return function  # type: ignore[no-any-return]
        message = (
            "names a module that has no such function"
            if function is None
            else "names something in its module that is no function"
        )
    raise SignerError(message)


class PluginSigner:
    """Calls the function for each request.

    Args:
        settings: What was configured; the name was loaded once already.
    """

    def __init__(self, settings: Signer) -> None:
        self._name = settings.name
        self._function = load_signer(settings.name)
        self._options = {name: value.reveal() for name, value in settings.options}

    def headers(self, request: SigningRequest) -> dict[str, str]:
        """Give what the function gives.

        Raises:
            HumanNeededError: It fails, or gives something else than headers.
        """
        try:
            given = self._function(request, dict(self._options))
        except Exception as error:  # noqa: BLE001 - its text may quote what it was given
            message = f"the signer {self._name} fails with {type(error).__name__}. Mend it"
            raise HumanNeededError(message) from None
        if not isinstance(given, dict) or not all(map(_is_header, given.items())):
            message = (
                f"the signer {self._name} gave no headers. Have it return a dict of names and"
                " values, both str and without line breaks"
            )
            raise HumanNeededError(message)
        return given

    def renew(self, refused: Mapping[str, str]) -> bool:
        """Leave it: each request is signed anew as it is."""
        del refused
        return False

    def secrets(self) -> tuple[()]:
        """Give nothing: what it signs with is configured."""
        return ()


def _is_header(line: tuple[object, object]) -> bool:
    name, value = line
    return (
        isinstance(name, str)
        and isinstance(value, str)
        and re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) is not None
        and _LINE.match(value) is not None
    )
