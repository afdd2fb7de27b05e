"""A program as people write it: it downloads a repository from the Hub. It knows nothing of zest_hf."""

import sys

from huggingface_hub import snapshot_download

print("downloaded to", snapshot_download(sys.argv[1]))
