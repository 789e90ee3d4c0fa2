"""File formats: from bytes to arrays or tables and back, a module for each family of formats."""
