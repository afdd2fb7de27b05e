"""A certificate that lives as long as a run, by an authority that nobody else knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zest_hf.errors import ZestError


@dataclass(frozen=True)
class Tls:
    """PEM files."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def environment(self) -> dict[str, str]:
        """What makes programs trust it: requests reads the second, everybody else (httpx, hf_xet) the first."""
        return dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), str(self.authority))

    @classmethod
    def issue(cls, folder: Path, host: str) -> Tls:
        """For one address. Raises ZestError without trustme."""
        try:
            import trustme
        except ImportError:
            raise ZestError('--tls needs trustme: pip install "zest_hf[bench]"') from None

        folder.mkdir()
        made = cls(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")
        authority = trustme.CA()
        leaf = authority.issue_cert(host)
        authority.cert_pem.write_to_path(made.authority)
        leaf.private_key_pem.write_to_path(made.key)
        for blob in leaf.cert_chain_pems:
            blob.write_to_path(made.certificate, append=True)
        return made
