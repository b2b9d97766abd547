#!lua flags=allow-oom
-- trip(submit|run, most in a row, reason, message, first delay ms, longest delay ms, job, job may be to blame 0|1): one more
-- fault of this kind with no success in between. After so many (of so many different jobs, where a job may be to blame) the gate
-- closes, and opens by a submission that is taken (submit) or a generation that is good (run). Answers 1 when the gate is closed:
-- the trouble is fal's, and the attempts that it has cost so far are given back. Natural key: the job, within a row.
local row = 'dr:trouble:' .. ARGV[1]
local blame = ARGV[8] == '1'
if not blame or not redis.call('LPOS', row, ARGV[7]) then redis.call('RPUSH', row, ARGV[7]) end
redis.call('LTRIM', row, -tonumber(ARGV[2]), -1)
redis.call('PEXPIRE', row, 3600000)
if redis.call('EXISTS', 'dr:gate:fal') == 0 then
  if redis.call('LLEN', row) < tonumber(ARGV[2]) then return 0 end
  for _, id in ipairs(redis.call('LRANGE', row, 0, -2)) do
    local job = blame and read_job(id)
    if job and not TERMINAL[job.status] and int(job.errored) > 0 then set(job, { errored = int(job.errored) - 1 }) end
  end
end
close_gate(ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], ARGV[1])
return 1
