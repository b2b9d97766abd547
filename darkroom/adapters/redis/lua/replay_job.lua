#!lua flags=allow-oom
-- replay_job(job, operation id, accept charge 0|1): an ended job starts a new life. What was paid is resumed; where a new
-- submission could charge again, that must have been accepted. Answers ok, missing, state or charge.
local job = read_job(ARGV[1])
if not job then return 'missing' end
local answer = replay(job, ARGV[2], ARGV[3])
dispatch()
return answer
