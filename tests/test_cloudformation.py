"""The templates of docs/cloudformation/: cfn-lint accepts them, and they say what the package and its tests say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

from elasticache_sessions.endpoint import Endpoint, Iam
from tests.support.topologies import CLUSTER_RIGHTS, LEAST_RIGHTS

TEMPLATES = Path(__file__).parents[1] / "docs" / "cloudformation"
CLUSTER, SERVERLESS, MEMCACHED = (
    TEMPLATES / name for name in ("valkey-cluster.yaml", "serverless.yaml", "memcached.yaml")
)

KNOWN = {
    "AWS::Region": "us-east-1",
    "CacheName": "shop",
    "User": "shop-app",
    "Cache.ConfigurationEndPoint.Address": "clustercfg.shop.abc123.use1.cache.amazonaws.com",
    "Cache.ConfigurationEndPoint.Port": "6379",
    "Cache.Endpoint.Address": "shop-abc123.serverless.use1.cache.amazonaws.com",
    "Cache.Endpoint.Port": "6379",
    "Cache.ConfigurationEndpoint.Address": "shop.abc123.cfg.use1.cache.amazonaws.com",
    "Cache.ConfigurationEndpoint.Port": "11211",
}
"""What `Ref` and `GetAtt` come to, in the shapes that AWS documents."""


def said(node: Any) -> Any:
    """What CloudFormation makes of `node`, for the functions that the templates use."""
    if not isinstance(node, dict) or len(node) != 1:
        return node
    ((name, argument),) = node.items()
    if name == "Ref":
        return KNOWN[argument]
    if name == "Fn::GetAtt":
        return KNOWN[".".join(argument)]
    if name == "Fn::Sub":
        text, own = argument if isinstance(argument, list) else (argument, {})
        known = KNOWN | {key: said(value) for key, value in own.items()}
        return re.sub(r"\$\{([^}]+)\}", lambda match: known[match[1]], text)
    return node


def template(path: Path) -> Any:
    return cfn_yaml.load(str(path))


def url(path: Path) -> Endpoint:
    return Endpoint.from_url(said(template(path)["Outputs"]["SessionsUrl"]["Value"]))


def lint(*paths: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("cfn-lint")
    return subprocess.run([program, *paths], capture_output=True, text=True)


def test_cfn_lint_accepts_the_templates() -> None:
    paths = sorted(TEMPLATES.glob("*.yaml"))
    assert set(paths) == {CLUSTER, SERVERLESS, MEMCACHED}
    done = lint(*paths)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("path", "line", "broken", "finds"),
    [
        (CLUSTER, "TransitEncryptionEnabled: true", "TransitEncryptionEnabled: sometimes", "E3012"),
        (CLUSTER, "Cache.ConfigurationEndPoint.Port", "Cache.Endpoint.Port", "E6101"),
        (SERVERLESS, "ServerlessCacheName: !Ref CacheName", "Name: !Ref CacheName", "E3002"),
        (MEMCACHED, "EngineVersion: 1.6.22", "EngineVersion: 9.9.9", "E3695"),
    ],
    ids=["a wrong type", "no such attribute", "no such property", "no such version"],
)
def test_cfn_lint_finds_what_is_broken(
    path: Path, line: str, broken: str, finds: str, tmp_path: Path
) -> None:
    text = path.read_text()
    assert line in text
    copy = tmp_path / path.name
    copy.write_text(text.replace(line, broken))
    done = lint(copy)
    assert done.returncode != 0
    assert finds in done.stdout


@pytest.mark.parametrize(
    ("path", "rights"), [(CLUSTER, CLUSTER_RIGHTS), (SERVERLESS, LEAST_RIGHTS)], ids=["cluster", "serverless"]
)
def test_the_user_may_do_what_the_tests_need_and_no_more(path: Path, rights: tuple[str, ...]) -> None:
    user = template(path)["Resources"]["User"]["Properties"]
    assert user["AccessString"].split() == ["on", *rights]
    assert user["AuthenticationMode"] == {"Type": "iam"}


def test_the_urls_are_those_of_what_is_made() -> None:
    cluster, serverless, memcached = url(CLUSTER), url(SERVERLESS), url(MEMCACHED)
    assert cluster.tls and cluster.cluster
    assert cluster.iam == Iam("shop-app", "shop")
    assert serverless.tls and not serverless.cluster
    assert serverless.iam == Iam("shop-app", "shop", serverless=True)
    assert memcached.tls and memcached.discovery and memcached.copies == 2
    assert (memcached.host, memcached.port) == ("shop.abc123.cfg.use1.cache.amazonaws.com", 11211)
    assert template(MEMCACHED)["Parameters"]["Nodes"]["MinValue"] >= memcached.copies


@pytest.mark.parametrize("path", [CLUSTER, SERVERLESS, MEMCACHED], ids=lambda path: path.stem)
def test_only_the_app_gets_in_and_no_secret_is_there(path: Path) -> None:
    made = template(path)["Resources"]
    (way_in,) = made["SecurityGroup"]["Properties"]["SecurityGroupIngress"]
    assert way_in["SourceSecurityGroupId"] == {"Ref": "AppSecurityGroupId"}
    assert way_in["FromPort"] == way_in["ToPort"] == made["Cache"]["Properties"].get("Port", 6379)
    assert not re.search(r"(?i)password|auth_?token", path.read_text())
