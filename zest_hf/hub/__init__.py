"""A small Xet Hub on this machine: repositories, CAS and CDN behind one address.

Unmodified clients need nothing but ``HF_ENDPOINT=http://HOST:PORT``. It serves the tests, the
demonstration and sites without an Internet line. It needs the ``[hub]`` extra; nothing outside this
package imports it.
"""

from __future__ import annotations

from zest_hf.hub.process import HubProcess

__all__ = ["HubProcess"]
