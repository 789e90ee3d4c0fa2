"""How rows become scores, and scores predictions."""
