BEGIN TRANSACTION;
CREATE TABLE tuner_alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT tuner_alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "tuner_alembic_version" VALUES('0002');
CREATE TABLE tuner_binary (
	id INTEGER NOT NULL, 
	digest VARCHAR NOT NULL, 
	target VARCHAR NOT NULL, 
	registers BIGINT NOT NULL, 
	spills BIGINT NOT NULL, 
	shared_bytes BIGINT NOT NULL, 
	instructions BIGINT NOT NULL, 
	load_bytes JSON NOT NULL, 
	store_bytes JSON NOT NULL, 
	CONSTRAINT pk_tuner_binary PRIMARY KEY (id), 
	CONSTRAINT uq_tuner_binary UNIQUE (digest, target)
);
INSERT INTO "tuner_binary" VALUES(1,'c0de','cuda:90',40,2,16384,900,'{"16": 4}','{"1": 2}');
CREATE TABLE tuner_claim (
	"key" VARCHAR NOT NULL, 
	run_id INTEGER NOT NULL, 
	CONSTRAINT pk_tuner_claim PRIMARY KEY ("key"), 
	CONSTRAINT fk_tuner_claim_run_id FOREIGN KEY(run_id) REFERENCES tuner_run (id)
);
INSERT INTO "tuner_claim" VALUES('in flight',1);
CREATE TABLE tuner_environment (
	id INTEGER NOT NULL, 
	digest VARCHAR NOT NULL, 
	target VARCHAR NOT NULL, 
	evidence VARCHAR NOT NULL, 
	device VARCHAR NOT NULL, 
	torch VARCHAR NOT NULL, 
	triton VARCHAR NOT NULL, 
	driver VARCHAR NOT NULL, 
	ptxas VARCHAR NOT NULL, 
	l2 VARCHAR NOT NULL, 
	protocol BIGINT NOT NULL, 
	CONSTRAINT pk_tuner_environment PRIMARY KEY (id), 
	CONSTRAINT uq_tuner_environment UNIQUE (digest)
);
INSERT INTO "tuner_environment" VALUES(1,'00d9f5d4584b6c54','cuda:90','measured','NVIDIA H100','2.13.0','3.6.0','580.65','12.8','cold',1);
CREATE TABLE tuner_evaluation (
	id INTEGER NOT NULL, 
	run_id INTEGER NOT NULL, 
	variant_id INTEGER NOT NULL, 
	source_digest VARCHAR NOT NULL, 
	shape_key VARCHAR NOT NULL, 
	shape JSON NOT NULL, 
	environment_id INTEGER NOT NULL, 
	status VARCHAR NOT NULL, 
	log TEXT NOT NULL, 
	binary_id INTEGER, 
	specialization_key TEXT, 
	compile_s DOUBLE, 
	elements BIGINT, 
	mismatched BIGINT, 
	undecided BIGINT, 
	agreement_detail TEXT, 
	median_us DOUBLE, 
	low_us DOUBLE, 
	high_us DOUBLE, 
	sample_count BIGINT, 
	samples_us JSON, 
	created_at DATETIME NOT NULL, sm_clock_mhz BIGINT, temperature_c BIGINT, throttle JSON, 
	CONSTRAINT pk_tuner_evaluation PRIMARY KEY (id), 
	CONSTRAINT uq_tuner_evaluation UNIQUE (source_digest, environment_id, variant_id, shape_key), 
	CONSTRAINT fk_tuner_evaluation_run_id FOREIGN KEY(run_id) REFERENCES tuner_run (id), 
	CONSTRAINT fk_tuner_evaluation_variant_id FOREIGN KEY(variant_id) REFERENCES tuner_variant (id), 
	CONSTRAINT fk_tuner_evaluation_environment_id FOREIGN KEY(environment_id) REFERENCES tuner_environment (id), 
	CONSTRAINT fk_tuner_evaluation_binary_id FOREIGN KEY(binary_id) REFERENCES tuner_binary (id)
);
INSERT INTO "tuner_evaluation" VALUES(1,2,1,'s0','{"dtype":"bf16","hidden":4096,"num_tokens":64}','{"num_tokens": 64, "hidden": 4096, "dtype": "bf16"}',1,'passed','fine',1,'*bf16:16',0.25,4096,0,3,'close',10.1,10.0,10.4,3,'[10.0, 10.1, 10.4]','2026-11-22 21:59:20.599799',1755,61,'["sw power cap"]');
INSERT INTO "tuner_evaluation" VALUES(2,2,2,'s0','{"dtype":"bf16","hidden":4096,"num_tokens":64}','{"num_tokens": 64, "hidden": 4096, "dtype": "bf16"}',1,'compile error','line 1
line 2',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'2026-11-22 21:59:20.605673',NULL,NULL,NULL);
CREATE TABLE tuner_run (
	id INTEGER NOT NULL, 
	kernel VARCHAR NOT NULL, 
	source_digest VARCHAR NOT NULL, 
	environment_id INTEGER NOT NULL, 
	seed BIGINT NOT NULL, 
	arguments JSON NOT NULL, 
	started_at DATETIME NOT NULL, 
	finished_at DATETIME, host VARCHAR, pid BIGINT, beat_at DATETIME, 
	CONSTRAINT pk_tuner_run PRIMARY KEY (id), 
	CONSTRAINT fk_tuner_run_environment_id FOREIGN KEY(environment_id) REFERENCES tuner_environment (id)
);
INSERT INTO "tuner_run" VALUES(1,'scale','s0',1,7,'{"budget": 2}','2026-11-22 19:30:00.000000',NULL,'host',4711,'2026-11-22 19:30:20.000000');
INSERT INTO "tuner_run" VALUES(2,'scale','s0',1,7,'{"budget": 2}','2026-11-22 21:59:20.595970','2026-11-22 21:59:20.610771','host',4711,'2026-11-22 21:59:20.595982');
CREATE TABLE tuner_variant (
	id INTEGER NOT NULL, 
	digest VARCHAR NOT NULL, 
	kernel VARCHAR NOT NULL, 
	implementation VARCHAR NOT NULL, 
	parameters JSON NOT NULL, 
	options JSON NOT NULL, 
	do_not_specialize JSON NOT NULL, 
	do_not_specialize_on_alignment JSON NOT NULL, 
	CONSTRAINT pk_tuner_variant PRIMARY KEY (id), 
	CONSTRAINT uq_tuner_variant UNIQUE (digest)
);
INSERT INTO "tuner_variant" VALUES(1,'5d8a6f5ac918e7c3','scale','rows','{"BLOCK": 64}','{"num_stages": 2, "num_warps": 4}','["num_tokens"]','["stride"]');
INSERT INTO "tuner_variant" VALUES(2,'130ae0ae49985937','scale','rows','{"BLOCK": 16}','{"num_warps": 8}','[]','[]');
CREATE TABLE tuner_winner (
	id INTEGER NOT NULL, 
	kernel VARCHAR NOT NULL, 
	source_digest VARCHAR NOT NULL, 
	shape_key VARCHAR NOT NULL, 
	shape JSON NOT NULL, 
	environment_id INTEGER NOT NULL, 
	variant_id INTEGER NOT NULL, 
	baseline_id INTEGER NOT NULL, 
	median_us DOUBLE NOT NULL, 
	low_us DOUBLE NOT NULL, 
	high_us DOUBLE NOT NULL, 
	sample_count BIGINT NOT NULL, 
	samples_us JSON NOT NULL, 
	baseline_median_us DOUBLE NOT NULL, 
	baseline_low_us DOUBLE NOT NULL, 
	baseline_high_us DOUBLE NOT NULL, 
	baseline_sample_count BIGINT NOT NULL, 
	baseline_samples_us JSON NOT NULL, 
	speedup DOUBLE NOT NULL, 
	speedup_low DOUBLE NOT NULL, 
	speedup_high DOUBLE NOT NULL, 
	compiles BIGINT NOT NULL, 
	reason TEXT NOT NULL, 
	updated_at DATETIME NOT NULL, 
	served VARCHAR, 
	CONSTRAINT pk_tuner_winner PRIMARY KEY (id), 
	CONSTRAINT uq_tuner_winner UNIQUE (kernel, source_digest, environment_id, shape_key), 
	CONSTRAINT fk_tuner_winner_environment_id FOREIGN KEY(environment_id) REFERENCES tuner_environment (id), 
	CONSTRAINT fk_tuner_winner_variant_id FOREIGN KEY(variant_id) REFERENCES tuner_variant (id), 
	CONSTRAINT fk_tuner_winner_baseline_id FOREIGN KEY(baseline_id) REFERENCES tuner_variant (id)
);
INSERT INTO "tuner_winner" VALUES(1,'scale','s0','{"dtype":"bf16","hidden":4096,"num_tokens":64}','{"num_tokens": 64, "hidden": 4096, "dtype": "bf16"}',1,1,2,10.1,10.0,10.4,3,'[10.0, 10.1, 10.4]',10.1,10.0,10.4,3,'[10.0, 10.1, 10.4]',1.2,1.1,1.3,3,'faster','2026-11-22 21:59:20.607870','0123456789abcdef');
CREATE INDEX ix_tuner_variant_kernel ON tuner_variant (kernel);
CREATE INDEX ix_tuner_run_kernel ON tuner_run (kernel);
CREATE INDEX ix_tuner_evaluation_run_id ON tuner_evaluation (run_id);
COMMIT;
