"""Certificates for tests, made by openssl in a folder: authorities, and leaves that they sign."""

import pathlib
import subprocess


class Certificates:
    def __init__(self, folder):
        self._folder = pathlib.Path(folder)

    def path(self, name):
        return str(self._folder / name)

    def text(self, name):
        return (self._folder / name).read_bytes()

    def revoke(self, authority, *names):
        """A list of revoked certificates, `AUTHORITY.crl`, signed by the authority."""
        (self._folder / "index").write_text("")
        (self._folder / "ca.cnf").write_text("[ca]\ndefault_ca=it\n[it]\ndatabase=index\ndefault_md=sha256\n")
        files = ("-config", "ca.cnf", "-keyfile", f"{authority}.key", "-cert", f"{authority}.crt")
        for name in names:
            self._openssl("ca", *files, "-revoke", f"{name}.crt")
        self._openssl("ca", *files, "-gencrl", "-crldays", "2", "-out", f"{authority}.crl")

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=self._folder)

    def authority(self, name):
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                      "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt")  # fmt: skip

    def leaf(self, name, authority, names="DNS:localhost", days="2", common_names=None):
        subject = "".join(f"/CN={common_name}" for common_name in common_names or [name])
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject,
                      "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        (self._folder / "ext").write_text(f"subjectAltName={names}\n" if names else "basicConstraints=CA:FALSE\n")
        self._openssl("x509", "-req", "-days", days, "-in", f"{name}.csr", "-CA", f"{authority}.crt", "-CAkey",
                      f"{authority}.key", "-CAcreateserial", "-extfile", "ext", "-out", f"{name}.crt")  # fmt: skip
