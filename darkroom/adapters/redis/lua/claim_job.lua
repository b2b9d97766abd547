#!lua flags=allow-oom
-- claim_job(job, token, lease ms): take the lease of a dispatched job. Natural key: the token. Answers the
-- job, or false when the message is stale (claimed by another, ended, not dispatched).
local job = read_job(ARGV[1])
if not job then return false end
if job.status == 'running' and job.lease == ARGV[2] then return whole(job.id) end
if job.status ~= 'queued' or job.place ~= 'republish' then return false end
local sub = read_sub(job.sub)
move(job, 'claimed', not paid(sub) and 'submitting' or sub.status == 'accepted' and 'generating' or 'copying')
place(job, 'lease', NOW + tonumber(ARGV[3]))
set(job, { lease = ARGV[2], started = job.started == '' and NOW or job.started })
return whole(job.id)
