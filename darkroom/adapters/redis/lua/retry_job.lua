#!lua flags=allow-oom
-- retry_job(job, token, delay ms, max attempts, error JSON, counts 0|1): an attempt met a fault worth another one. With
-- `counts` it is an errored attempt, and the last allowed one ends the job. Natural key: the token.
local job = read_job(ARGV[1])
local held = fence(job, ARGV[2])
if held ~= 'held' then return held and 1 or 0 end
local errored = int(job.errored) + tonumber(ARGV[6])
set(job, { errored = errored })
if errored >= tonumber(ARGV[4]) then
  finish(job, 'exhausted', ARGV[5])
else
  local at = NOW + tonumber(ARGV[3])
  redis.call('SET', job_key(job.id) .. ':error', ARGV[5])
  release(job, 'errored', 'scheduled')
  drop_job_permit(job.id)
  set(job, { next = at })
  place(job, 'retry', at)
end
dispatch()
return 1
