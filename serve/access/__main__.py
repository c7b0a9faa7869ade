"""`python -m serve.access new NAME`: a new API key, and the line for the key file."""

from __future__ import annotations

import argparse
import sys

from serve.access.keyring import NAME, new_key


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m serve.access", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("new", help="make a key; it is shown once, and only its hash is for the file")
    new.add_argument("name", help="whose key it is: small letters, digits and hyphens")
    name = parser.parse_args().name
    if not NAME.fullmatch(name):
        parser.error(f"name is {name!r}; expected small letters, digits and hyphens, at most 63")
    key, digest = new_key()
    sys.stdout.write(f"key, for {name} alone:  {key}\nline for the key file:\n  {name}: {{sha256: [{digest}]}}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
