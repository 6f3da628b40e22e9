"""Triggers that enforce invariants of jobs in the database.

The code keeps these invariants, too. With the triggers a bug ends as an error in a log, not as a lost or revived job.
The migration that creates them has the same text.
"""

from sqlalchemy import DDL, event

from app.jobs.db.tables import jobs, schedule

END_IS_FINAL = """
CREATE FUNCTION jobs_end_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'job % has ended: it % and cannot become %', OLD.id, OLD.state, NEW.state
        USING ERRCODE = 'check_violation', CONSTRAINT = 'jobs_end_is_final';
END $$
"""
SCHEDULED_WHILE_LIVE = """
CREATE FUNCTION jobs_scheduled_while_live() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    job uuid;
BEGIN
    IF TG_TABLE_NAME = 'jobs' THEN job := NEW.id;
    ELSIF TG_OP = 'DELETE' THEN job := OLD.job_id;
    ELSE job := NEW.job_id;
    END IF;
    IF EXISTS (
        SELECT FROM jobs LEFT JOIN schedule ON schedule.job_id = jobs.id
        WHERE jobs.id = job AND (jobs.finished_at IS NULL) <> (schedule.job_id IS NOT NULL)
    ) THEN
        RAISE EXCEPTION 'job % must be on the schedule exactly while it is live', job
            USING ERRCODE = 'check_violation', CONSTRAINT = 'jobs_scheduled_while_live';
    END IF;
    RETURN NULL;
END $$
"""
# One statement each. The deferred ones are checked at commit.
ON_JOBS = (
    END_IS_FINAL,
    """
    CREATE TRIGGER jobs_end_is_final BEFORE UPDATE ON jobs FOR EACH ROW
    WHEN (OLD.finished_at IS NOT NULL AND (NEW.finished_at IS NULL OR NEW.state <> OLD.state))
    EXECUTE FUNCTION jobs_end_is_final()
    """,
)
ON_SCHEDULE = (
    SCHEDULED_WHILE_LIVE,
    """
    CREATE CONSTRAINT TRIGGER jobs_scheduled_when_made AFTER INSERT ON jobs DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION jobs_scheduled_while_live()
    """,
    """
    CREATE CONSTRAINT TRIGGER jobs_not_scheduled_at_the_end AFTER UPDATE ON jobs DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL)
    EXECUTE FUNCTION jobs_scheduled_while_live()
    """,
    """
    CREATE CONSTRAINT TRIGGER schedule_is_of_live_jobs AFTER INSERT OR DELETE ON schedule DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION jobs_scheduled_while_live()
    """,
)

for _table, _statements in ((jobs, ON_JOBS), (schedule, ON_SCHEDULE)):
    for _statement in _statements:
        event.listen(_table, "after_create", DDL(_statement.replace("%", "%%")))  # type: ignore[no-untyped-call]
