alter table manifest
	add storage_class text collate "C" not null default '', -- '' is the standard class
	add archived_at timestamptz, -- null: never, or unknown
	add restored_at timestamptz; -- null: never, or unknown
