#!lua flags=allow-oom
-- snooze_job(job, token): put back without using an attempt. Natural key: the token. Answers 0 when the lease was lost, or a
-- POST's outcome is not known yet: only doubt_job ends that.
local job = read_job(ARGV[1])
local held = fence(job, ARGV[2], 'snooze')
if held ~= 'held' then return held and 1 or 0 end
local sub = read_sub(job.sub)
if awaits_reply(sub) then return 0 end
release(job, 'snoozed', job.stage)
requeue(job, sub)
dispatch()
return 1
