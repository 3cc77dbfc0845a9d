#!/usr/bin/env python3
"""psycopg2: one connection, made anew when it is lost.

Reads numbers of orders from standard input, saves each of them, and lists at the end what is saved.
"""
import os
import sys
import time

import psycopg2

PATIENCE = 60  # seconds for one order, a failover included


def connect():
    # pgpivot holds new connections while it fails over; give up after it would.
    connection = psycopg2.connect(os.environ["DATABASE_URL"], connect_timeout=40)
    connection.autocommit = True
    return connection


def save(connection, order):
    wait, deadline = 0.1, time.monotonic() + PATIENCE
    while True:
        try:
            if connection is None or connection.closed:
                connection = connect()
            with connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO orders (client, id) VALUES ('psycopg2', %s) ON CONFLICT DO NOTHING", (order,)
                )
            return connection
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            print(f"trying again: {error}", file=sys.stderr)
            if time.monotonic() > deadline:
                raise
            if connection is not None:
                connection.close()
            connection = None
            time.sleep(wait)
            wait = min(wait * 2, 2)


def main():
    connection = None
    for line in iter(sys.stdin.readline, ""):
        connection = save(connection, int(line))
        print(f"saved {int(line)}", flush=True)
    with (connection or connect()).cursor() as cursor:
        cursor.execute("SELECT id FROM orders WHERE client = 'psycopg2' ORDER BY id")
        print("read", *(row[0] for row in cursor.fetchall()))


main()
