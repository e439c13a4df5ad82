-- Objects are marked with the ID of their database. A copy of a database needs
-- another, and objects of its own.
alter table meta add id text collate "C" not null default gen_random_uuid()::text;
