"""``python -m novacron.api.document``: the OpenAPI document, as it is checked in."""

import json
import sys

from novacron.api.app import create_app

if __name__ == "__main__":
    json.dump(create_app(None).openapi_schema.to_schema(), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
