"""File formats: bytes in, arrays out, and back; one module per family of formats."""
