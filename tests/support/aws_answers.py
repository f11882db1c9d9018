"""What the API of ElastiCache says of caches, in full, as AWS documents it. `**changes` go over it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

_SINCE = datetime(2025, 11, 3, 9, 30, tzinfo=UTC)
_ACCOUNT = "arn:aws:elasticache:eu-central-1:123456789012"


def place(host: str, port: int = 6379) -> dict[str, Any]:
    return {"Address": f"{host}.cache.amazonaws.com", "Port": port}


def group(**changes: Any) -> dict[str, Any]:
    """A replication group: Valkey, one primary and one replica, TLS, cluster mode disabled."""
    return {
        "ReplicationGroupId": "shop",
        "Description": "sessions",
        "GlobalReplicationGroupInfo": {},
        "Status": "available",
        "PendingModifiedValues": {},
        "MemberClusters": ["shop-001", "shop-002"],
        "NodeGroups": [
            {
                "NodeGroupId": "0001",
                "Status": "available",
                "PrimaryEndpoint": place("master.shop.abc123.euc1"),
                "ReaderEndpoint": place("replica.shop.abc123.euc1"),
                "NodeGroupMembers": [
                    {
                        "CacheClusterId": f"shop-00{number}",
                        "CacheNodeId": "0001",
                        "ReadEndpoint": place(f"shop-00{number}.shop.abc123.euc1"),
                        "PreferredAvailabilityZone": "eu-central-1a",
                        "CurrentRole": "primary" if number == 1 else "replica",
                    }
                    for number in (1, 2)
                ],
            }
        ],
        "AutomaticFailover": "enabled",
        "MultiAZ": "enabled",
        "SnapshotRetentionLimit": 0,
        "SnapshotWindow": "03:00-04:00",
        "ClusterEnabled": False,
        "CacheNodeType": "cache.t4g.small",
        "AuthTokenEnabled": False,
        "TransitEncryptionEnabled": True,
        "TransitEncryptionMode": "required",
        "AtRestEncryptionEnabled": True,
        "ARN": f"{_ACCOUNT}:replicationgroup:shop",
        "UserGroupIds": [],
        "LogDeliveryConfigurations": [],
        "ReplicationGroupCreateTime": _SINCE,
        "DataTiering": "disabled",
        "AutoMinorVersionUpgrade": True,
        "NetworkType": "ipv4",
        "IpDiscovery": "ipv4",
        "ClusterMode": "disabled",
        "Engine": "valkey",
    } | changes


def sharded(**changes: Any) -> dict[str, Any]:
    """The same in cluster mode, with two shards."""
    shards = [
        {"NodeGroupId": f"000{number}", "Status": "available", "Slots": slots, "NodeGroupMembers": []}
        for number, slots in ((1, "0-8191"), (2, "8192-16383"))
    ]
    return (
        group(
            ClusterEnabled=True,
            ClusterMode="enabled",
            ConfigurationEndpoint=place("clustercfg.shop.abc123.euc1"),
            NodeGroups=shards,
        )
        | changes
    )


def serverless(**changes: Any) -> dict[str, Any]:
    return {
        "ServerlessCacheName": "shop",
        "Description": " ",
        "CreateTime": _SINCE,
        "Status": "available",
        "Engine": "valkey",
        "MajorEngineVersion": "8",
        "FullEngineVersion": "8.1",
        "SecurityGroupIds": ["sg-0123456789abcdef0"],
        "Endpoint": place("shop-abc123.serverless.euc1"),
        "ReaderEndpoint": place("shop-abc123.serverless.euc1", 6380),
        "ARN": f"{_ACCOUNT}:serverlesscache:shop",
        "SubnetIds": ["subnet-1", "subnet-2"],
        "SnapshotRetentionLimit": 0,
        "DailySnapshotTime": "03:00",
    } | changes


def cluster(engine: str = "memcached", nodes: int = 2, **changes: Any) -> dict[str, Any]:
    """A cache cluster without a replication group: Memcached, or a single node of Redis or Valkey."""
    port = 11211 if engine == "memcached" else 6379
    return (
        {
            "CacheClusterId": "shop",
            "ClientDownloadLandingPage": "https://console.aws.amazon.com/elasticache/home#client-download:",
            "CacheNodeType": "cache.t4g.small",
            "Engine": engine,
            "EngineVersion": "1.6.22" if engine == "memcached" else "7.1.0",
            "CacheClusterStatus": "available",
            "NumCacheNodes": nodes,
            "PreferredAvailabilityZone": "eu-central-1a",
            "CacheClusterCreateTime": _SINCE,
            "PreferredMaintenanceWindow": "sun:23:00-mon:01:30",
            "PendingModifiedValues": {},
            "CacheSecurityGroups": [],
            "CacheParameterGroup": {
                "CacheParameterGroupName": "default",
                "ParameterApplyStatus": "in-sync",
                "CacheNodeIdsToReboot": [],
            },
            "CacheSubnetGroupName": "default",
            "CacheNodes": [
                {
                    "CacheNodeId": f"000{number}",
                    "CacheNodeStatus": "available",
                    "CacheNodeCreateTime": _SINCE,
                    "Endpoint": place(f"shop.abc123.000{number}.euc1", port),
                    "ParameterGroupStatus": "in-sync",
                    "CustomerAvailabilityZone": "eu-central-1a",
                }
                for number in range(1, nodes + 1)
            ],
            "AutoMinorVersionUpgrade": True,
            "SecurityGroups": [{"SecurityGroupId": "sg-0123456789abcdef0", "Status": "active"}],
            "SnapshotRetentionLimit": 0,
            "AuthTokenEnabled": False,
            "TransitEncryptionEnabled": False,
            "AtRestEncryptionEnabled": False,
            "ARN": f"{_ACCOUNT}:cluster:shop",
            "ReplicationGroupLogDeliveryEnabled": False,
            "LogDeliveryConfigurations": [],
            "NetworkType": "ipv4",
            "IpDiscovery": "ipv4",
        }
        | ({"ConfigurationEndpoint": place("shop.abc123.cfg.euc1", port)} if engine == "memcached" else {})
        | changes
    )
