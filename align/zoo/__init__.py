"""Two frameworks' own collections against each other: the proof that any pair of models can be aligned."""
