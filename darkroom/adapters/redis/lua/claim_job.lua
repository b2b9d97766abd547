#!lua flags=allow-oom
-- claim_job(job, token, lease ms): take the lease of a dispatched job. Natural key: the token. Answers 1, or 0 when the
-- message is stale (claimed by another, ended, not dispatched).
local job = read_job(ARGV[1])
if not job then return 0 end
if job.status == 'running' and job.lease == ARGV[2] then return 1 end
if job.status ~= 'queued' or job.place ~= 'republish' then return 0 end
local sub = read_sub(job.sub)
move(job, 'claimed', not paid(sub) and 'submitting' or sub.status == 'accepted' and 'generating' or 'copying')
place(job, 'lease', NOW + tonumber(ARGV[3]))
set(job, { lease = ARGV[2], started = job.started == '' and NOW or job.started })
return 1
