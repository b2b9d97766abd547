#!lua flags=allow-oom
-- finish_job(job, token, completed|rejected|exhausted|expired|cancelled, error JSON): end a running job. Natural key: the token
-- and the event. Answers 0 when the lease was lost, or a POST's outcome is not known yet: only doubt_job ends that.
local job = read_job(ARGV[1])
local held = fence(job, ARGV[2], ARGV[3])
if held ~= 'held' then return held and 1 or 0 end
if awaits_reply(read_sub(job.sub)) then return 0 end
finish(job, ARGV[3], ARGV[4])
dispatch()
return 1
