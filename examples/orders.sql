-- The table that the examples write. A key that the application chooses makes a repeated insert harmless: when a
-- connection is lost during a commit, nobody knows whether it took effect, and the application may simply say it again.
CREATE TABLE orders (client text, id bigint, PRIMARY KEY (client, id));
