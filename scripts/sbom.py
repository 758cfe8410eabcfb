#!/usr/bin/env python3
"""Writes what an image holds as SPDX 2.3 (JSON): attend, and every package of its dpkg database.

    sbom.py --version 0.2.0 --revision COMMIT --created SECONDS < var/lib/dpkg/status > sbom.spdx.json

What attend's binaries have of header-only libraries (Highway's and Boost's headers, CLI11, nlohmann-json) is in no package of the
image and so not here. The same input gives the same bytes. Licences are not asserted: dpkg does not record them; each package's
are in /usr/share/doc/PACKAGE/copyright of the image.
"""

import argparse
import datetime
import hashlib
import json
import re
import sys
import urllib.parse

NONE = "NOASSERTION"


def installed_packages(status):
    """The fields of each installed package. A paragraph that is none, such as one without a version, is an error."""
    packages = []
    for paragraph in filter(None, re.split(r"\n\s*\n", status.strip() + "\n")):
        # Lines that begin with a blank continue the field before, and no such field is needed here.
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): *(.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").split()[-1:] != ["installed"]:
            continue
        missing = [name for name in ("Package", "Version", "Architecture") if not fields.get(name)]
        if missing:
            raise ValueError(f"a package without {missing[0]}: {paragraph[:200]}")
        packages.append(fields)
    if not packages:
        raise ValueError("no installed package: is this a dpkg status file?")
    return sorted(packages, key=lambda fields: (fields["Package"], fields["Architecture"]))


def spdx_id(name):
    return "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", name)


def package(identifier, name, version, **fields):
    unknown = {"downloadLocation": NONE, "licenseConcluded": NONE, "licenseDeclared": NONE, "copyrightText": NONE}
    return {"SPDXID": identifier, "name": name, "versionInfo": version, "filesAnalyzed": False, **unknown, **fields}


def debian_package(fields):
    name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
    source, _, source_version = fields.get("Source", name).partition(" ")
    locator = f"pkg:deb/debian/{urllib.parse.quote(name)}@{urllib.parse.quote(version, safe='')}?arch={architecture}&distro=debian-12"
    return package(
        spdx_id(f"{name}-{architecture}"),
        name,
        version,
        supplier="Organization: Debian",
        sourceInfo=f"built from the source package {source} {source_version.strip('()') or version}",
        externalRefs=[{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator}],
    )


def document(status, version, revision, created):
    debian = [debian_package(fields) for fields in installed_packages(status)]
    image = package("SPDXRef-image", "attend-image", version, primaryPackagePurpose="CONTAINER")
    attend = package("SPDXRef-attend", "attend", version, licenseDeclared="Apache-2.0", primaryPackagePurpose="APPLICATION",
                     sourceInfo=f"built from the commit {revision}")  # fmt: skip
    contained = [attend, *debian]
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image")]
    relations += [("SPDXRef-image", "CONTAINS", entry["SPDXID"]) for entry in contained]
    digest = hashlib.sha256(json.dumps([contained, revision, created]).encode()).hexdigest()
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"attend-image-{version}",
        "documentNamespace": f"https://spdx.org/spdxdocs/attend-image-{version}-{digest}",
        "creationInfo": {
            "created": datetime.datetime.fromtimestamp(created, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: attend-sbom"],
        },
        "packages": [image, *contained],
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other} for one, kind, other in relations
        ],
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", required=True)
    parser.add_argument("--revision", required=True)
    parser.add_argument("--created", type=int, required=True, help="seconds since 1970")
    arguments = parser.parse_args()
    json.dump(document(sys.stdin.read(), arguments.version, arguments.revision, arguments.created), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
