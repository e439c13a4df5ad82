-- Repositories that somebody has made, or that were made for a push.
create table repository (
	name text collate "C" primary key,
	settings json not null -- with the name and when it was made
);
