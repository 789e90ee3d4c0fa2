"""How good a model is: predictions, rankings, and what to hold out."""
