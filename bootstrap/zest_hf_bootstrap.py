"""What `zest_hf.pth` (and, from Python 3.15 on, `zest_hf.start`) runs when an interpreter starts.

Must never be the reason why an interpreter does not start, and costs one look at the environment while
zest_hf is off.
"""

import os


def start() -> None:
    """Switch zest_hf on if HF_HUB_ENABLE_ZEST says so. Runs more than once in a virtual environment."""
    if os.environ.get("HF_HUB_ENABLE_ZEST", "").upper() not in ("1", "ON", "YES", "TRUE"):
        return
    try:
        from zest_hf.hook import enable

        enable()
    except Exception as error:
        import logging

        reason = " ".join(str(error).split())
        logger = logging.getLogger("zest_hf")
        logger.warning("zest_hf: cannot be enabled (%s); downloads run without it", reason)
