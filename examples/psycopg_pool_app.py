#!/usr/bin/env python3
"""psycopg 3 with its pool: a failed order makes the pool check all of its connections and replace the dead ones.

Reads numbers of orders from standard input, saves each of them, and lists at the end what is saved.
"""
import os
import sys
import time

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

PATIENCE = 60  # seconds for one order, a failover included


def save(pool, order):
    wait, deadline = 0.1, time.monotonic() + PATIENCE
    while True:
        try:
            with pool.connection() as connection:
                connection.execute(
                    "INSERT INTO orders (client, id) VALUES ('psycopg_pool', %s) ON CONFLICT DO NOTHING", (order,)
                )
            return
        except (psycopg.OperationalError, PoolTimeout) as error:
            print(f"trying again: {error}", file=sys.stderr)
            if time.monotonic() > deadline:
                raise
            # From psycopg_pool 3.2 on, ConnectionPool(check=ConnectionPool.check_connection) does it by itself.
            pool.check()
            time.sleep(wait)
            wait = min(wait * 2, 2)


def main():
    # Connections get old, so that a pool spreads over what a failover has brought.
    pool = ConnectionPool(
        os.environ["DATABASE_URL"], min_size=1, max_size=4, timeout=40, max_lifetime=900, kwargs={"connect_timeout": 40}
    )
    with pool:
        for line in iter(sys.stdin.readline, ""):
            save(pool, int(line))
            print(f"saved {int(line)}", flush=True)
        with pool.connection() as connection:
            rows = connection.execute("SELECT id FROM orders WHERE client = 'psycopg_pool' ORDER BY id").fetchall()
        print("read", *(row[0] for row in rows))


main()
