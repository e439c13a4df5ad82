-- The longest lease that processes have, in microseconds; null: none was here yet.
alter table meta add lease bigint;
