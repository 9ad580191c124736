"""Which packages of this environment have known vulnerabilities: `python tools/audit.py PIP_AUDIT`.

pip-audit says that it has found none also where nobody could be asked. This counts who was: PyPI's advisories first,
then OSV's; exit code 1 for a finding, 2 where something could not be asked about, 0 only for a clean answer about all.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib import metadata
from typing import Any

SERVICES = {"pypi": "PyPI (pypi.org/pypi/…/json)", "osv": "OSV (api.osv.dev)"}


def installed() -> list[str]:
    """`name==version` of every distribution but this project's; "+cpu" and the like are no versions of an index."""
    found = {(d.name.lower(), d.version.partition("+")[0]) for d in metadata.distributions() if d.name != "coarseloc"}
    return sorted(f"{name}=={version}" for name, version in found)


def ask(pip_audit: str, service: str, packages: list[str]) -> list[dict[str, Any]]:
    """What a service says of each package; nothing where it does not answer."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write("\n".join(packages))
        wanted.flush()
        how = ["--vulnerability-service", service, "--no-deps", "--disable-pip", "--timeout", "10"]
        command = [pip_audit, "--requirement", wanted.name, *how, "--format", "json", "--progress-spinner", "off"]
        done = subprocess.run(command, capture_output=True, text=True)
    try:
        return list(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError):
        return []


def verdict(said: list[dict[str, Any]], service: str) -> tuple[list[str], int]:
    """Lines for a reader, and the exit code."""
    asked = [one for one in said if "skip_reason" not in one]
    unknown = [one["name"] for one in said if "skip_reason" in one]
    lines = [
        f"{one['name']} {one['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'no version'}"
        for one in asked
        for found in one["vulns"]
    ]
    if lines:
        return [*lines, f"{len(lines)} known vulnerabilities in {len(asked)} packages, by {service}"], 1
    if unknown:
        rest = f"; not known there and so not audited: {', '.join(unknown)}"
        return [f"no known vulnerability in {len(asked)} packages, by {service}{rest}"], 2
    return [f"no known vulnerability in any of {len(asked)} packages, by {service}"], 0


def main() -> int:
    packages = installed()
    for service, name in SERVICES.items():
        said = ask(sys.argv[1], service, packages)
        if any("skip_reason" not in one for one in said):
            lines, code = verdict(said, name)
            print("\n".join(lines))
            return code
    print(f"not audited: of {len(packages)} packages neither {' nor '.join(SERVICES.values())} answered for any")
    return 2


if __name__ == "__main__":
    sys.exit(main())
