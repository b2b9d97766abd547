#!lua flags=allow-oom
-- snooze_job(job, token): put back without using an attempt. Natural key: the token.
local job = read_job(ARGV[1])
local held = fence(job, ARGV[2])
if held ~= 'held' then return held and 1 or 0 end
local sub = read_sub(job.sub)
if sub and sub.status == 'intended' then return 0 end
local stage = job.stage
release(job, 'snoozed', stage)
requeue(job, sub)
dispatch()
return 1
