#!/usr/bin/env python3
"""Makes one small OpenAPI document, for Prism to judge requests by, of what we call in Datadog's two large ones.

Usage: spec.py FOLDER OUTPUT, where FOLDER holds v1/openapi.yaml and v2/openapi.yaml. Not a general tool: it keeps the paths below.
"""

import json
import pathlib
import sys

import yaml

PATHS = {"v1": ["/api/v1/series", "/api/v1/validate", "/api/v1/metrics/{metric_name}"], "v2": ["/api/v2/series"]}
# Version 1 documents the type under the name it had long ago; the intake takes today's, which we send.
OLD_JSON = "text/json"


def main(folder, output):
    keys = {"apiKey": {"type": "apiKey", "in": "header", "name": "DD-API-KEY"}}
    document = {"openapi": "3.0.0", "info": {"title": "Datadog, as far as called", "version": "1"}, "paths": {}, "components": {}}
    for version, paths in PATHS.items():
        source = yaml.load((folder / version / "openapi.yaml").read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        for path in paths:
            operations = {method: taken(operation, version, source, document) for method, operation in source["paths"][path].items()}
            for operation in operations.values():
                operation["security"] = [{"apiKey": []}]
            document["paths"][path] = operations
    document["components"]["securitySchemes"] = keys
    output.write_text(json.dumps(document))


def taken(part, version, source, document):
    """A copy of a part; what it refers to is taken into the document once, under the version's name."""
    if isinstance(part, list):
        return [taken(item, version, source, document) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        kind, name = part["$ref"].split("/")[2:]
        components = document["components"].setdefault(kind, {})
        ours = f"{version}-{name}"
        if ours not in components:
            components[ours] = {}  # A part may refer to itself.
            components[ours] = taken(source["components"][kind][name], version, source, document)
        return {"$ref": f"#/components/{kind}/{ours}"}
    # Prism answers with the examples; those that are files beside the original, and vendor extensions, are of no use to it.
    kept = {key: value for key, value in part.items() if not key.startswith("x-") and not (isinstance(value, dict) and "externalValue" in value)}
    copy = {key: taken(value, version, source, document) for key, value in kept.items()}
    if copy.get("default", 0) is None:
        del copy["default"]
    if OLD_JSON in copy:
        copy["application/json"] = copy.pop(OLD_JSON)
    return copy


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
