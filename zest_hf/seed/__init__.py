"""zest-seed: offers what is in the Hugging Face cache to peers, from the files themselves."""
