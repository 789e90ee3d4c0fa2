"""Dataset: rows that were checked once, as all of fm computes with them."""
