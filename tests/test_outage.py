"""What the name of a route says of a request that the store failed."""

from __future__ import annotations

import pytest

from elasticache_sessions.outage import signs_in_or_out


@pytest.mark.parametrize(
    "route", ["logout", "auth.logout", "account_logout", "log_out", "sign-out", "signOut"]
)
def test_a_sign_out_is_one_whatever_its_view_did(route: str) -> None:
    assert signs_in_or_out(route, "GET", modified=False)


@pytest.mark.parametrize("route", ["login", "auth.sign_in", "account_login", "log-in"])
def test_a_sign_in_is_one_once_it_changes_the_session(route: str) -> None:
    assert signs_in_or_out(route, "POST", modified=True)
    assert not signs_in_or_out(route, "POST", modified=False), "the password was wrong"
    assert not signs_in_or_out(route, "GET", modified=True), "it shows the form"


@pytest.mark.parametrize("route", [None, "", "cart", "logout_all.confirm", "login.help", "logouts"])
def test_another_is_neither(route: str | None) -> None:
    assert not signs_in_or_out(route, "POST", modified=True)
