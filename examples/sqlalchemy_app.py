#!/usr/bin/env python3
"""SQLAlchemy: pool_pre_ping tests a connection before it is lent out and replaces the pool's when it is dead.

Reads numbers of orders from standard input, saves each of them, and lists at the end what is saved.
"""
import os
import sys
import time

from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

PATIENCE = 60  # seconds for one order, a failover included
INSERT = text("INSERT INTO orders (client, id) VALUES ('sqlalchemy', :id) ON CONFLICT DO NOTHING")
SELECT = text("SELECT id FROM orders WHERE client = 'sqlalchemy' ORDER BY id")


def save(engine, order):
    wait, deadline = 0.1, time.monotonic() + PATIENCE
    while True:
        try:
            with engine.begin() as connection:
                connection.execute(INSERT, {"id": order})
            return
        # The ping sees what died before; what dies in the middle is the application's to repeat.
        except DBAPIError as error:
            print(f"trying again: {error.orig}", file=sys.stderr)
            if time.monotonic() > deadline:
                raise
            time.sleep(wait)
            wait = min(wait * 2, 2)


def main():
    engine = create_engine(
        os.environ["DATABASE_URL"], pool_pre_ping=True, pool_recycle=900, connect_args={"connect_timeout": 40}
    )
    for line in iter(sys.stdin.readline, ""):
        save(engine, int(line))
        print(f"saved {int(line)}", flush=True)
    with engine.connect() as connection:
        print("read", *(row[0] for row in connection.execute(SELECT)))


main()
