"""Text as numbers: the tokenizer, token shards on disk, and the deterministic batch stream."""
