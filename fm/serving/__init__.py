"""Parts of the server: media types, bodies to rows, models by name, and the process around them."""
