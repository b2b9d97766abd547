#!lua flags=allow-oom
-- retry_job(job, token, delay ms, max attempts, error JSON, counts 0|1): an attempt met a fault worth another one. With
-- `counts` it is an errored attempt, and the last allowed one ends the job, unless fal has taken its request: from then on
-- attempts end nothing. A cancellation that waited takes effect. Natural key: the token. Answers 0 when the lease was lost,
-- or a POST's outcome is not known yet: only doubt_job ends that.
local job = read_job(ARGV[1])
local held = fence(job, ARGV[2], 'retry')
if held ~= 'held' then return held and 1 or 0 end
local sub = read_sub(job.sub)
if awaits_reply(sub) then return 0 end
-- While the gate is closed the trouble is fal's: no job is to blame.
local counts = ARGV[6] == '1' and redis.call('EXISTS', 'dr:gate:fal') == 0
local errored = int(job.errored) + (counts and 1 or 0)
set(job, { errored = errored })
if job.cancel == '1' and not paid(sub) then
  finish(job, 'cancelled')
elseif errored >= tonumber(ARGV[4]) and not paid(sub) then
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
