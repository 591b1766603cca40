"""Certificates for tests, made by the openssl program in a folder of the test."""

import shutil
import subprocess
from pathlib import Path

from tests import servers

EXTENSIONS = {
    "ca": "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n",
    "leaf": "basicConstraints=critical,CA:FALSE\nsubjectAltName={names}\n",
}


class Authority:
    """A certificate authority in a folder, and what it has signed."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        if shutil.which("openssl") is None:
            servers.missing("no openssl")
        self.folder = folder
        self.name = name
        self.certificate, self._key = self._make(name, EXTENSIONS["ca"])

    def issue(
        self, name: str, names: str = "DNS:localhost,IP:127.0.0.1", days: int = 2
    ) -> tuple[Path, Path]:
        """Certificate and key of somebody; with negative days it has expired."""
        return self._make(name, EXTENSIONS["leaf"].format(names=names), self, days)

    def _make(
        self, name: str, extensions: str, signer: "Authority | None" = None, days: int = 2
    ) -> tuple[Path, Path]:
        key, asked, made, extra = (
            self.folder / f"{name}.{end}" for end in ("key", "csr", "pem", "ext")
        )
        extra.write_text(extensions)
        openssl(
            *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", key, "-out", asked),
        )
        by = ["-signkey", key]
        if signer is not None:
            by = ["-CA", signer.certificate, "-CAkey", signer._key, "-CAcreateserial"]
        openssl(
            *("x509", "-req", "-in", asked, *by, "-days", str(days), "-extfile", extra),
            *("-out", made),
        )
        key.chmod(0o600)
        return made, key


def openssl(*arguments: object) -> None:
    """Run openssl; what it says is shown when it fails."""
    done = subprocess.run(
        ["openssl", *map(str, arguments)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
