"""Everything compiled: the vector type, optimizers, training, scoring."""
