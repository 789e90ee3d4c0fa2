"""Factorization machines as estimators of scikit-learn."""
