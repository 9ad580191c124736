"""Run a command beside a PostgreSQL that exists for it alone: `python tools/with_postgres.py [--if-there] pytest …`.

Made of the server's own binaries (Debian: `apt-get install postgresql`) in a temporary folder, on a free port of
127.0.0.1, by an unprivileged user, without fsync; COARSELOC_TEST_DATABASE_URL names it to the command. Where there
are no such binaries this fails, or, with --if-there, says so and is content.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "coarseloc_test"


def binaries() -> Path | None:
    """The newest server's folder."""
    initdb_paths = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if initdb_paths:
        return initdb_paths[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def unprivileged() -> str | None:
    """The user to run as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    users = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in users else "nobody"


@contextmanager
def server(bin_: Path, folder: Path) -> Iterator[str]:
    """Start a cluster in the folder; gives the URL of an empty database in it."""
    user = unprivileged()
    if user:
        shutil.chown(folder, user)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])

    def run(tool: str, *args: str) -> None:
        process = subprocess.run([bin_ / tool, *args], user=user, cwd=folder, capture_output=True, text=True)
        if process.returncode:
            log = folder / "log"
            log_end = log.read_text()[-2000:] if log.exists() else ""
            sys.exit(f"{tool} failed: {process.stderr or process.stdout}{log_end}")

    data = str(folder / "data")
    run("initdb", "-D", data, "-U", "coarseloc", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
    options = f"-F -p {port} -k {folder} -c listen_addresses=127.0.0.1"
    run("pg_ctl", "-D", data, "-l", str(folder / "log"), "-o", options, "-w", "start")
    try:
        run("createdb", "-h", "127.0.0.1", "-p", port, "-U", "coarseloc", NAME)
        yield f"postgresql+psycopg://coarseloc@127.0.0.1:{port}/{NAME}"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")


def main() -> int:
    optional = sys.argv[1:2] == ["--if-there"]
    command, bin_ = sys.argv[1 + optional :], binaries()
    if bin_ is None:
        advice = "apt-get install postgresql, or set COARSELOC_TEST_DATABASE_URL and run pytest"
        print(f"no PostgreSQL server here (initdb), so nothing was run on it: {advice}", flush=True)
        return 0 if optional else 2
    with tempfile.TemporaryDirectory(prefix="coarseloc-postgres-") as folder, server(bin_, Path(folder)) as url:
        return subprocess.run(command, env=os.environ | {"COARSELOC_TEST_DATABASE_URL": url}).returncode


if __name__ == "__main__":
    sys.exit(main())
