"""Other programs that read REST APIs, each at its normal work, each in a venv of its own."""
