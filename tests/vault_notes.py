"""Notes for processes that mask into one vault, each with values of its own and one that all share."""

KEY, SCOPE = bytes(range(32)), "integration"


def note(number: int) -> str:
    """The text of that number."""
    return f"Dr. Chen saw {number}@example.com, phone 138{number % 10**8:08d}."
