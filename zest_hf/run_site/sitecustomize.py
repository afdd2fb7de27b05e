"""What `zest run` puts first on PYTHONPATH: switches zest_hf on, then runs the sitecustomize that this one hides."""

import importlib.util
import os
import sys
from importlib.machinery import PathFinder

_here = os.path.dirname(os.path.abspath(__file__))

try:
    from zest_hf_bootstrap import start
except ImportError:
    print(
        f"zest_hf: not installed for {sys.executable}; its downloads go the normal way", file=sys.stderr, flush=True
    )
else:
    start()

_others = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != _here]
_hidden = PathFinder.find_spec("sitecustomize", _others)
if _hidden is not None and _hidden.loader is not None:
    _module = importlib.util.module_from_spec(_hidden)
    # As if this one were not there: also for whoever imports it later.
    sys.modules["sitecustomize"] = _module
    _hidden.loader.exec_module(_module)
