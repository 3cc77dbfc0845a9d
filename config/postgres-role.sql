-- The role pgpivot logs in with, once on the primary, in the database that the configuration names (default postgres):
-- PostgreSQL keeps grants on functions per database.
--
--   psql -v password=secret -f config/postgres-role.sql postgres

CREATE ROLE pgpivot LOGIN REPLICATION PASSWORD :'password';          -- REPLICATION: read the timeline's history
GRANT pg_read_all_stats TO pgpivot;                                  -- the witness: what the standby still receives
GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO pgpivot;   -- promoter = "postgres"

-- For `proxyctl switchover` and `restore`, and to make an old primary read-only (soft_fence); PostgreSQL 15 and newer,
-- before, they need a superuser:
GRANT pg_signal_backend TO pgpivot;
GRANT EXECUTE ON FUNCTION pg_reload_conf() TO pgpivot;
GRANT ALTER SYSTEM ON PARAMETER default_transaction_read_only, synchronous_standby_names TO pgpivot;

-- For `proxyctl rejoin`: is the log still there that the old primary would need? Without it that is said to be unseen.
GRANT EXECUTE ON FUNCTION pg_ls_waldir() TO pgpivot;
-- With more than one standby, to point the others at a new primary (PostgreSQL 15 and newer):
GRANT pg_read_all_settings TO pgpivot;
GRANT ALTER SYSTEM ON PARAMETER primary_conninfo TO pgpivot;

-- A hang of the primary is told from a slow one by the standby's silence: half of this time and half a second.
-- On each standby:
--   ALTER SYSTEM SET wal_receiver_timeout = '3s'; SELECT pg_reload_conf();
