"""A program as people write it: it loads a model from the Hub and embeds a sentence. It knows nothing of zest_hf."""

import sys

import torch
from transformers import AutoModel, AutoTokenizer

repo, sentence = sys.argv[1], sys.argv[2]
tokenizer = AutoTokenizer.from_pretrained(repo)
model = AutoModel.from_pretrained(repo)
tokens = tokenizer(sentence, return_tensors="pt")
with torch.no_grad():
    states = model(**tokens).last_hidden_state
mask = tokens["attention_mask"].unsqueeze(-1)
vector = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)[0]
print("embedding", " ".join(f"{value:.8f}" for value in vector.tolist()))
