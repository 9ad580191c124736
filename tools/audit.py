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
    versions = {
        (d.name.lower(), d.version.partition("+")[0]) for d in metadata.distributions() if d.name != "coarseloc"
    }
    return sorted(f"{name}=={version}" for name, version in versions)


def query_service(pip_audit: str, service: str, packages: list[str]) -> list[dict[str, Any]]:
    """A service's report on each package, as pip-audit writes it; empty where the service does not answer."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("\n".join(packages))
        requirements.flush()
        options = ["--vulnerability-service", service, "--no-deps", "--disable-pip", "--timeout", "10"]
        options += ["--format", "json", "--progress-spinner", "off"]
        command = [pip_audit, "--requirement", requirements.name, *options]
        process = subprocess.run(command, capture_output=True, text=True)
    try:
        return list(json.loads(process.stdout)["dependencies"])
    except (ValueError, KeyError):
        return []


def verdict(reports: list[dict[str, Any]], service: str) -> tuple[list[str], int]:
    """(lines for a reader, exit code) of one service's reports."""
    audited = [package for package in reports if "skip_reason" not in package]
    unknown = [package["name"] for package in reports if "skip_reason" in package]
    lines = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, "
        f"mended in {', '.join(vulnerability['fix_versions']) or 'no version'}"
        for package in audited
        for vulnerability in package["vulns"]
    ]
    if lines:
        return [*lines, f"{len(lines)} known vulnerabilities in {len(audited)} packages, by {service}"], 1
    if unknown:
        rest = f"; not known there and so not audited: {', '.join(unknown)}"
        return [f"no known vulnerability in {len(audited)} packages, by {service}{rest}"], 2
    return [f"no known vulnerability in any of {len(audited)} packages, by {service}"], 0


def main() -> int:
    packages = installed()
    for service, name in SERVICES.items():
        reports = query_service(sys.argv[1], service, packages)
        if any("skip_reason" not in package for package in reports):
            lines, code = verdict(reports, name)
            print("\n".join(lines))
            return code
    print(f"not audited: of {len(packages)} packages neither {' nor '.join(SERVICES.values())} answered for any")
    return 2


if __name__ == "__main__":
    sys.exit(main())
