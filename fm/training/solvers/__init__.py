"""How the parameters change: one file per solver; ``fm.recipes`` names them."""
