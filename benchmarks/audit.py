"""Known holes in what `constraints.txt` names, and the licences of what is installed: `make audit`."""

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "constraints.txt"
NO_ANSWER = "audit: no advisory service answers, so nothing was looked up; run it where there is a network"


def holes(report: str) -> list[str] | None:
    """The known holes in a ``report``, the JSON of pip-audit; None if none of its packages was looked up."""
    try:
        packages = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):  # it ends with a traceback where it reaches nobody
        return None
    known = [package for package in packages if "vulns" in package]  # the others have a reason why not
    lines = []
    for package in known:
        for hole in package["vulns"]:
            mended = ", ".join(hole["fix_versions"]) or "no version"
            lines.append(f"{package['name']} {package['version']}: {hole['id']}, mended in {mended}")
    return lines if known else None


def main() -> int:
    """Print both; returns 1 if there is a hole, or if nothing was looked up."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--no-deps", "--disable-pip"]
    options = ["--progress-spinner", "off", "--format", "json"]
    found = holes(subprocess.run([*command, *options], capture_output=True, text=True, check=False).stdout)
    print(NO_ANSWER if found is None else "\n".join(found) or "no known holes", flush=True)
    subprocess.run([sys.executable, "-m", "piplicenses", "--order", "license"], check=True)
    return int(found is None or bool(found))


if __name__ == "__main__":
    sys.exit(main())
