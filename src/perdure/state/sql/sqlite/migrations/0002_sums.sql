-- Sums over what had none, so that an altered row is known for one. NULL: written before there were sums, taken as it is.
ALTER TABLE progress ADD COLUMN crc INTEGER;
ALTER TABLE requests ADD COLUMN crc INTEGER;
ALTER TABLE tombstones ADD COLUMN crc INTEGER;
ALTER TABLE pulse ADD COLUMN total INTEGER NOT NULL DEFAULT 0;
UPDATE pulse SET total = commits + clock + last_run;
