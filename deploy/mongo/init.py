"""
Make one mongod a replica set with a user, or see that it is one; running it again changes nothing.

It runs in the network of the mongod (compose: `network_mode: service:mongo`), because MongoDB lets nobody but
a client on the same host make the set and its first user. Waits for the server, for a primary and, when it was
interrupted before, goes on where it stopped.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

ALREADY_INITIALIZED = 23
UNAUTHORIZED = (13, 18)


def wait_for(what: str, ask: Any, seconds: float) -> Any:
    """Ask until there is an answer, or say after so many seconds what did not come."""
    last: Exception | None = None
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := ask():
                return found
        except PyMongoError as error:
            last = error
        time.sleep(0.5)
    raise SystemExit(f"otelier: {what} within {seconds:.0f} s: {last}")


def main() -> int:
    """Exit code 0 when the set has a primary and the user can log in."""
    local = os.environ.get("MONGO_LOCAL", "mongodb://127.0.0.1:27017")
    member = os.environ.get("MONGO_MEMBER", "mongo:27017")
    name = os.environ.get("MONGO_SET", "rs0")
    user = os.environ.get("MONGO_USER", "otelier")
    password = (
        Path(os.environ.get("MONGO_PASSWORD_FILE", "/run/otelier/mongo-password"))
        .read_text()
        .strip()
    )
    seconds = float(os.environ.get("MONGO_WAIT", "120"))

    direct = pymongo.MongoClient(local, directConnection=True, serverSelectionTimeoutMS=2000)
    hello = wait_for("MongoDB does not answer", lambda: direct.admin.command("hello"), seconds)
    if "setName" not in hello:
        members = [{"_id": 0, "host": member}]
        try:
            direct.admin.command("replSetInitiate", {"_id": name, "members": members})
            print(f"otelier: made the replica set {name} of {member}", flush=True)
        except OperationFailure as error:
            if error.code not in (ALREADY_INITIALIZED, *UNAUTHORIZED):
                raise
    wait_for(
        f"{member} does not become primary; does the name lead to this server?",
        lambda: direct.admin.command("hello").get("isWritablePrimary"),
        seconds,
    )
    try:
        direct.admin.command(
            "createUser", user, pwd=password, roles=[{"role": "root", "db": "admin"}]
        )
        print(f"otelier: made the user {user}", flush=True)
    except OperationFailure as error:
        if error.code not in UNAUTHORIZED and "already exists" not in str(error):
            raise
    known = pymongo.MongoClient(
        local,
        directConnection=True,
        username=user,
        password=password,
        serverSelectionTimeoutMS=2000,
    )
    try:
        known.admin.command("usersInfo", user)
    except OperationFailure as error:
        raise SystemExit(
            f"otelier: the user {user} is there with another password: put that one into the volume"
            f" `secrets`, or remove the volume `mongo` with its data ({error.details.get('errmsg')})"
        ) from None
    print("otelier: MongoDB is ready", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
