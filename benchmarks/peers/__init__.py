"""Other people's libraries, each in a virtual environment of its own under ``.venv-peers``."""
