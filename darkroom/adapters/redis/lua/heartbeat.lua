#!lua flags=allow-oom
-- heartbeat(lease ms, job, token, job, token ...): renew leases. Answers one number a job: 0 lost, 1 held, 2 held and a
-- cancellation is wanted.
local answers = {}
for i = 2, #ARGV, 2 do
  local fields = redis.call('HMGET', job_key(ARGV[i]), 'status', 'lease', 'cancel')
  if fields[1] == 'running' and fields[2] == ARGV[i + 1] then
    redis.call('ZADD', 'dr:leases', 'XX', NOW + tonumber(ARGV[1]), ARGV[i])
    answers[#answers + 1] = fields[3] == '1' and 2 or 1
  else
    answers[#answers + 1] = 0
  end
end
return answers
