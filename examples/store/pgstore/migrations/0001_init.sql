-- Text that is compared or listed is in byte order, whatever the database's own
-- collation is.

create table meta (
	version int not null, -- the last migration that was run
	made_at timestamptz not null
);
create unique index meta_is_one on meta ((true));

-- Open eras, the current one last. Those before the first are closed.
create table era (
	era bigint primary key,
	began_at timestamptz not null
);
insert into era values (1, '-infinity');

-- Keys of objects that a content or a session refers to. Nothing refers to any
-- other key.
create table object (
	key text collate "C" primary key
);

-- Bytes, shared by repositories.
create table content (
	digest text collate "C" primary key,
	size bigint not null,
	keys text[] not null, -- of its objects, one after the other
	sizes bigint[] not null -- and of each of them
);

-- A blob is in those repositories that have a link to it.
create table link (
	repo text collate "C",
	digest text collate "C" references content,
	touched_at timestamptz not null,
	primary key (repo, digest)
);
create index link_by_digest on link (digest, repo);

create table session (
	id text collate "C" primary key,
	repo text collate "C" not null,
	size bigint not null,
	algorithm text not null,
	hash bytea not null,
	state bytea not null,
	updated_at timestamptz not null
);
-- Most of a state is content, which seldom gets shorter.
alter table session alter state set storage external;

create table manifest (
	repo text collate "C",
	digest text collate "C",
	descriptor json not null, -- as a list of referrers shows it
	artifact_type text collate "C" not null,
	subject text collate "C", -- null: none
	manifests text[] not null,
	blobs text[] not null,
	pushed_at timestamptz, -- null: unknown
	raw bytea not null,
	primary key (repo, digest)
);
create index manifest_by_subject on manifest (repo, subject, digest) where subject is not null;
create index manifest_by_subject_and_type on manifest (repo, subject, artifact_type, digest) where subject is not null;

create table tag (
	repo text collate "C",
	name text collate "C",
	digest text collate "C" not null,
	moved_at timestamptz, -- null: unknown
	primary key (repo, name),
	foreign key (repo, digest) references manifest on delete cascade
);
create index tag_by_digest on tag (repo, digest, name);

-- Which manifests name a blob: manifest.blobs the other way round.
create table need (
	repo text collate "C",
	blob text collate "C",
	manifest text collate "C",
	primary key (repo, blob, manifest)
);

-- Which manifests list a manifest: manifest.manifests the other way round.
create table parent (
	repo text collate "C",
	child text collate "C",
	manifest text collate "C",
	primary key (repo, child, manifest)
);

-- See outbox.go.
create table event (
	xid bigint default pg_current_xact_id()::text::bigint,
	id bigint generated always as identity,
	repo text collate "C" not null,
	change json not null,
	primary key (xid, id)
);

create table pull (
	repo text collate "C",
	digest text collate "C",
	at timestamptz not null,
	primary key (repo, digest)
);
