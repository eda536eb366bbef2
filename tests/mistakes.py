"""For tests of mistakes: how they are told."""

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


class Attack:
    """Pickled: a call of that function by whoever reads the pickle."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced
