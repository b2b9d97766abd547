#!lua flags=allow-oom
-- doubt_job(job, token, submission, error JSON, look ms): the POST's outcome is unknown: reconciling begins. The permit stays
-- with the submission. Natural key: the token.
local job = read_job(ARGV[1])
local held = fence(job, ARGV[2], 'doubt')
if held ~= 'held' then return held and 1 or 0 end
local sub = read_sub(ARGV[3])
if sub.status == 'intended' then move_sub(sub, 'doubted', { doubted = NOW, error = ARGV[4] }) end
release(job, 'doubted', 'reconciling')
if sub.status == 'uncertain' then place(job, 'reconcile', NOW + tonumber(ARGV[5]))
else requeue(job, sub) end
dispatch()
return 1
