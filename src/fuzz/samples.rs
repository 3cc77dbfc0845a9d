//! What is really written where the targets read: the fuzzers start from these.

/// Logins in versions 3.0 and 3.2, requests for TLS, GSSAPI and a cancel, a ClientHello, a stranger.
pub(super) const FIRST_PACKET: &[&[u8]] = &[
    b"\0\0\0 \0\x03\0\0user\0app\0database\0bank\0\0",
    b"\0\0\0=\0\x03\0\x02user\0app\0crdb:remote_addr\x0010.0.0.1:1\0options\0-c x=y\0\0",
    b"\0\0\0\x08\x04\xd2\x16/",
    b"\0\0\0\x08\x04\xd2\x160",
    b"\0\0\0\x10\x04\xd2\x16.\0\0\x124\xde\xad\xbe\xef",
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    b"GET / HTTP/1.1\x0d\n\x0d\n",
];

/// Errors, the steps of SCRAM, a whole login, a row; then lengths and counts that are announced and not kept.
pub(super) const SERVER: &[&[u8]] = &[
    b"E\0\0\0OSFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0Rprocess_startup\0\0",
    b"R\0\0\0*\0\0\0\nSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0",
    b"R\0\0\0V\0\0\0\x0br=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    b"R\0\0\x006\0\0\0\x0cv=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    b"v\0\0\0\x13\0\x03\0\0\0\0\0\x01_pq_.x\0R\0\0\0\x08\0\0\0\0S\0\0\0\x18server_version\x0015.4\0K\0\0\0\x0c\0\0\x124\xde\xad\xbe\xefZ\0\0\0\x05I",
    b"T\0\0\0*\0\x01pg_is_in_recovery\0\0\0\0\0\0\0\0\0\0\x10\0\x01\xff\xff\xff\xff\0\0D\0\0\0\x0b\0\x01\0\0\0\x01fC\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I",
    b"N\0\0\0\"SWARNING\0C57P01\0Mterminating\0\0E\0\0\0OSFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0Rprocess_startup\0\0",
    b"p\0\0\0&SCRAM-SHA-256\0\0\0\0\x0fp=tls-unique,,n=",
    b"D\0\0\0\x0b\xfe\x01\0\0\0\x01f",
    b"T\0\0\0\x07\xff\xffa",
    b"R\0\x0f\0\0\0\0\0\0",
];

/// Files that are valid, one of them with every key there is.
pub(super) const CONFIG: &[&[u8]] = &[
    include_bytes!("../../tests/samples/valid/minimal.toml"),
    include_bytes!("../../tests/samples/valid/everything.toml"),
    include_bytes!("../../tests/samples/valid/cockroach.toml"),
    include_bytes!("../../tests/samples/valid/patroni.toml"),
];

/// The ways to describe a pair by variables.
pub(super) const DOTENV: &[&[u8]] = &[
    b"DATABASE_URL=postgres://pgpivot:change-me@db1.example.com:5432/postgres\nDATABASE_REPLICA_URL='postgres://db2'\n",
    b"# a pair\nexport DB_HOST=db1\nPGPIVOT_STANDBYS=\"db2:5433,db3\"\nDB_PASSWORD='a $ # b'\nFAILURE_THRESHOLD=3\n",
    b"COCKROACH_API_SECRET_KEY=CCDB1_0123456789abcdef\nPRIMARY_CLUSTER_ID=00000000-0000-0000-0000-00000000000a\n\
      STANDBY_CLUSTER_ID=00000000-0000-0000-0000-00000000000b\nHEALTH_CHECK_INTERVAL=2.5\n",
];

/// A reply of each call, and what stands in front of an API that is down.
pub(super) const CLOUD: &[&[u8]] = &[
    br#"{"clusters":[{"id":"00000000-0000-0000-0000-00000000000a","name":"east","state":"CREATED","plan":"ADVANCED",
        "regions":[{"name":"us-east1","node_count":"3","sql_dns":"h"}],"config":{"dedicated":{"num_virtual_cpus":4}}}],
        "pagination":{"next_page":"abc","limit":10}}"#,
    br#"{"id":"00000000-0000-0000-0000-000000000001","primary_cluster_id":"00000000-0000-0000-0000-00000000000a",
        "standby_cluster_id":"00000000-0000-0000-0000-00000000000b","status":"REPLICATING",
        "created_at":"2026-01-02T15:04:05Z","replicated_time":"2026-01-03T15:04:04.123456Z","replication_lag_seconds":31}"#,
    br#"{"physical_replication_streams":[{"id":"00000000-0000-0000-0000-000000000001","status":"COMPLETED",
        "primary_cluster_id":"00000000-0000-0000-0000-00000000000a","failover_at":"0001-01-01T00:00:00Z",
        "standby_cluster_id":"00000000-0000-0000-0000-00000000000b"}],"pagination":null}"#,
    br#"{"nodes":[{"name":"n1","region_name":"us-east1","status":"LIVE"}],"pagination":{}}"#,
    br#"{"regional_disruptor_specifications":[{"region_code":"us-east1","is_whole_region":true,"azs":["a"],"pods":[]}]}"#,
    br#"{"connection_string":"postgresql://h","params":{"Host":"h.example","Port":"26257","Database":"d"}}"#,
    br#"{"code":5,"message":"cluster not found","details":[]}"#,
    b"<html><head><title>502 Bad Gateway</title></head></html>",
    b"Thu, 26 Nov 2026 23:39:36 GMT",
];

/// `GET /cluster` and `GET /history`.
pub(super) const PATRONI: &[&[u8]] = &[
    br#"{"members":[{"name":"db1","role":"leader","state":"running","api_url":"http://10.0.0.1:8008/patroni",
        "host":"10.0.0.1","port":5432,"timeline":4},{"name":"db2","role":"sync_standby","state":"streaming","host":"db2",
        "port":"5433","tags":{"nofailover":true,"failover_priority":"0"},"lag":"unknown"}],"pause":true,
        "scheduled_switchover":{"at":"2030-09-24T10:36:00+02:00","from":"db1","to":"db2"}}"#,
    br#"[[1,25623960,"no recovery target specified","2026-09-23T16:57:57+00:00","db2"],[2,"25624344","x"]]"#,
];

/// Both forms.
pub(super) const CONNINFO: &[&[u8]] = &[
    b"user=replicator password='it''s \\' a \\\\ secret' host=db1,db3 port=5432,5433 application_name=db2 sslmode = prefer",
    b"postgresql://replicator:p%40ss@db1.example.com:5432,[2001:db8::1]:5433/postgres?sslmode=require&application_name=db2",
    b"postgres://%2Ftmp/x?host=db1&port=5432",
    b"hostaddr=10.0.0.1 options='-c a=b'",
];

/// As PostgreSQL's manual writes them.
pub(super) const SYNC_NAMES: &[&[u8]] = &[
    b"FIRST 2 (db2, \"Db \"\"3\"\"\", walreceiver)",
    b"ANY 1 (*)",
    b"2 (db2, 3)",
    b"db2, walreceiver",
    b"\"first\", any_",
];

/// Bodies, and queries.
pub(super) const COMMAND: &[&[u8]] = &[
    br#"{"to":"us-west","force":true,"route_only":false,"at":"2026-01-02T15:04:05Z","reason":"maintenance"}"#,
    br#"{"backend":"us-east","method":"rewind","reason":null}"#,
    b"service=main&dry_run=true&wait=30s&reason=a%20b",
    b"",
];

/// Places, a position in the log, an id, a path, a certificate's beginning.
pub(super) const WORDS: &[&[u8]] = &[
    b"db1.example.com:5432",
    b"[2001:db8::1]:26257",
    b"16/B374D848",
    b"00000000-0000-0000-0000-00000000000a",
    b"/api/v1/clusters/00000000-0000-0000-0000-00000000000a?pagination.page=%2B",
    b"-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQ==\n-----END CERTIFICATE-----\n\
      -----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n",
];
