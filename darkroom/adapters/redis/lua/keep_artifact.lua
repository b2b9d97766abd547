#!lua flags=allow-oom
-- keep_artifact(job, token, index, artifact JSON): checkpoint: this picture lies in the bucket. Fenced; repeatable.
local job = read_job(ARGV[1])
if fence(job, ARGV[2], 'keep') ~= 'held' then return 0 end
if redis.call('HSET', job_key(job.id) .. ':artifacts', ARGV[3], ARGV[4]) == 1 then usage(job.account, 'pictures', 1) end
set(job, { rescues = 0 })
return 1
