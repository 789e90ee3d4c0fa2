"""File formats: bytes in, arrays or tables out, and back; one module per family of formats."""
