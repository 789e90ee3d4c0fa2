"""The verbs: options, output, messages."""
