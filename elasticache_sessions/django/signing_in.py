"""What `django.contrib.auth.login` makes of a session, and what becomes of it where that is refused."""

from __future__ import annotations

from .content import OWNER, SIGN_IN
from .state import State


def sign_in(state: State) -> bool:
    """Somebody has just been signed in. False: not by this session."""
    core = state.core
    if core is None or OWNER not in core.fields:
        return False
    core.signing_in = True
    if core.stored is not None and not core.cycling:
        state.renew(core)  # Django does so only where nobody was signed in
    return True


def take_back(state: State) -> None:
    """Be anonymous again, as before a sign-in that was refused before anything of it was stored."""
    if (core := state.core) is None:
        return
    for name in SIGN_IN:
        core.fields.pop(name, None)
    core.cycling, core.signing_in, core.next_id, state.key = False, False, None, core.id
    state.declared = state.dirty = core.stored is None and bool(core.fields)
