"""Servers that behave as vendors do, one for each shipped configuration.

A module here may have `VENDORS`, a tuple of entries; those are all found.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from tests.servers.vendors.listing import Listing

if TYPE_CHECKING:
    from tests.servers.vendors.emulator import Vendor


def _find() -> dict[str, Vendor]:
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names if name[0] != "_"]
    found = [vendor for module in modules for vendor in getattr(module, "VENDORS", ())]
    return {vendor.name: vendor for vendor in sorted(found, key=lambda vendor: vendor.name)}


VENDORS = _find()


def has_gaps(vendor: Vendor) -> bool:
    """Tell whether a vendor is played with empty pages that lead on."""
    return any(isinstance(route, Listing) and route.gaps for route in vendor.routes.values())


def write_table() -> str:
    """Write what is played of each vendor as a table in Markdown."""
    rows = [("Configuration", "Emulated", "Not emulated"), ("---", "---", "---")]
    for vendor in VENDORS.values():
        gaps = "; empty pages in between" if has_gaps(vendor) else ""
        rows.append((f"`{vendor.name}`", vendor.emulated + gaps, vendor.not_emulated))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
