"""What the documentation names is there: URLs that are accepted, settings, files, headings, rights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from elasticache_sessions import Settings, endpoint_memcached
from elasticache_sessions.clients.aws_caches import KINDS
from elasticache_sessions.clients.breaker import FAILURES
from elasticache_sessions.settings import NAME, Endpoint
from tests.support.topologies import CLUSTER_RIGHTS, LEAST_RIGHTS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELASTICACHE = (ROOT / "docs" / "elasticache.md").read_text()
SETTINGS = {field.name.upper() for field in fields(Settings)}

URL = re.compile(r"\b(?:rediss?|valkeys?|memcached(?:\+discovery)?|elasticache|memory)://[^\s`'\"|)]*")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def urls(text: str) -> Iterator[str]:
    """Those that are written out; what is left open has an ellipsis, or is a scheme alone."""
    for url in URL.findall(text):
        if "…" not in url and not url.endswith("://"):
            yield url.rstrip(".,;:")


def headings(page: Path) -> set[str]:
    """As links name them."""
    found = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@each_page
def test_every_url_is_accepted(page: Path) -> None:
    for url in urls(page.read_text()):
        assert Endpoint.from_url(url).store


def test_the_pages_do_name_urls() -> None:
    kinds = {Endpoint.from_url(url).store for url in urls(ELASTICACHE)}
    assert kinds == {"redis", "memcached", "elasticache"}


@each_page
def test_every_setting_exists(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(rf"{NAME}([A-Z_]*[A-Z])", text)) | set(re.findall(r"`_([A-Z_]+)`", text))
    assert named <= SETTINGS


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if "://" in link:
            continue
        place, _, heading = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not heading or heading in headings(target), link


@each_page
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    for name in re.findall(r"`(tests/\w+\.py)`", page.read_text()):
        assert (ROOT / name).exists(), name


# docs/memcached.md


def test_every_option_of_a_url_is_explained() -> None:
    page = (ROOT / "docs" / "memcached.md").read_text()
    for option in {option for options in endpoint_memcached.OPTIONS.values() for option in options}:
        assert re.search(rf"^\| [^|]*`{option}`", page, re.MULTILINE), option
    assert f"| `discovery_interval` | {endpoint_memcached.INTERVAL:g} |" in page


# docs/elasticache.md


def test_the_rights_are_those_that_the_tests_run_with() -> None:
    said = re.findall(r"^ *(?:--access-string \")?(on ~sess:[^\"\n]*)", ELASTICACHE, re.MULTILINE)
    assert said == [f"on {' '.join(rights)}" for rights in (LEAST_RIGHTS, CLUSTER_RIGHTS, CLUSTER_RIGHTS)]


def test_the_policies_allow_what_is_asked() -> None:
    policies = [json.loads(text) for language, text in FENCE.findall(ELASTICACHE) if language == "json"]
    describe, connect = (policy["Statement"][0]["Action"] for policy in policies)
    operations = [kind.operation.title().replace("_", "") for kind in KINDS]
    assert describe == [f"elasticache:{operation}" for operation in operations]
    assert connect == "elasticache:Connect"


def test_every_parameter_of_the_templates_has_its_reason() -> None:
    reasons = set(re.findall(r"^\| `([\w-]+)`", ELASTICACHE, re.MULTILINE))
    for template in ("valkey-cluster.yaml", "memcached.yaml"):
        text = (ROOT / "docs" / "cloudformation" / template).read_text()
        (group,) = re.findall(
            r"^      Properties: # docs/elasticache.md .*\n((?:        .*\n)+)", text, re.MULTILINE
        )
        parameters = set(re.findall(r"^ *([\w-]+):", group, re.MULTILINE))
        assert parameters
        assert parameters <= reasons


def test_the_defaults_are_the_code_s() -> None:
    settings = Settings()
    for name in ("TIMEOUT", "CONNECT_TIMEOUT"):
        assert f"`{NAME}{name}` ({getattr(settings, name.lower()):g} s)" in ELASTICACHE
    assert f"`{NAME}MAX_CONNECTIONS` ({settings.max_connections})" in ELASTICACHE
    assert f"`{NAME}MAX_BYTES` ({settings.max_bytes:,})" in ELASTICACHE
    assert f"after {FAILURES} failures in a row" in ELASTICACHE
