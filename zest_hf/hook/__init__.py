"""The join between huggingface_hub and the engine; no other module of ours knows its insides.

``switch``      on and off: an import hook and the functions that it replaces
``seam``        the replacements: ``xet_get`` and what surrounds it
``fallback``    the Hub's own path, when ours fails
``staging``     where the bytes are written until the file is complete
``connection``  Xet tokens, and whether a repository is public
``progress``    the Hub's progress bars

Only ``switch`` is loaded here: this package is imported when an interpreter starts.
"""

from __future__ import annotations

from .switch import disable, enable, enabled_for_now, is_enabled, status

__all__ = ["disable", "enable", "enabled_for_now", "is_enabled", "status"]
