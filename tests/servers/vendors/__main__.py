"""Print the table of `docs/vendors.md`: `python -m tests.servers.vendors`."""

from tests.servers.vendors import write_table

print(write_table(), end="")
