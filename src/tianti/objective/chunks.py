"""How many scores of the vocabulary the loss holds at a time; known without importing torch."""

# 16 MB in float32, which a processor's cache still holds; a GPU wants thousands of rows at once.
CHUNK_LOGITS = 1 << 22
GPU_CHUNK_LOGITS = 1 << 27
