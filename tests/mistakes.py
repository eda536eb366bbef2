"""For tests of mistakes and attacks: how they are told, and pickles that call a function."""

import pytest

from lib.errors import UserError


def told(call, *arguments):
    """What the user is told of a mistake, in one line."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert "weights_only" not in message  # torch's advice to load unsafely is not ours
    return message


class Call:
    """Pickles as a call, or as a call followed by `__setstate__`."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced
