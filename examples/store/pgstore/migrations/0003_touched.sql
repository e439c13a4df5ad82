-- Of the last push; null: unknown.
alter table manifest add touched_at timestamptz;
update manifest set touched_at = pushed_at;
