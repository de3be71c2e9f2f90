"""A pipeline of dlt's: its REST API source into files of its filesystem destination."""

from __future__ import annotations

import sys
from urllib.parse import urlsplit

import dlt
from dlt.sources.rest_api import rest_api_source

LOADED = "loaded"


def main() -> None:
    """Extract, normalize and load."""
    url = urlsplit(sys.argv[1])
    source = rest_api_source(
        {
            "client": {"base_url": f"{url.scheme}://{url.netloc}"},
            "resources": [
                {
                    "name": "events",
                    "endpoint": {
                        "path": url.path,
                        "params": {"limit": 1000},
                        "data_selector": "events",
                        "paginator": {
                            "type": "page_number",
                            "base_page": 1,
                            "total_path": None,
                            "stop_after_empty_page": True,
                        },
                    },
                }
            ],
        }
    )
    dlt.pipeline(
        "listing",
        pipelines_dir="pipelines",
        destination=dlt.destinations.filesystem(bucket_url=LOADED),
        dataset_name="log",
    ).run(source, loader_file_format="jsonl")


if __name__ == "__main__":
    main()
