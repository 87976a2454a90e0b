"""Documents: from what people have to clean, unique text in three splits."""
