#!/bin/sh
# psql in a script: every statement has a connection of its own, which pgpivot holds while it fails over; what fails all
# the same is said again.
#
# Reads numbers of orders from standard input, saves each of them, and lists at the end what is saved.
set -eu
export PGCONNECT_TIMEOUT=40

ask() {
    psql -X -q -A -t -v ON_ERROR_STOP=1 -v id="${2:-0}" -d "$DATABASE_URL" <<SQL
$1
SQL
}

while read -r order; do
    tries=30
    until ask "INSERT INTO orders (client, id) VALUES ('psql', :id) ON CONFLICT DO NOTHING;" "$order" </dev/null; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || exit 1
        echo "trying again" >&2
        sleep 1
    done
    echo "saved $order"
done
echo read $(ask "SELECT id FROM orders WHERE client = 'psql' ORDER BY id;")
