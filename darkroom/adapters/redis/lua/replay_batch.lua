#!lua flags=allow-oom
-- replay_batch(batch, up to line, last 0|1, jobs ...): one slice of what retry_batch asked for. A job that could be charged again is
-- left, where that was not accepted. Natural key: the operation on each job.
local batch = read_batch(ARGV[1])
if not batch or not batch.replay_op or batch.status == 'cancelling' then
  drop_timer(ARGV[1], 'replay')
  return 0
end
for i = 4, #ARGV do
  local job = read_job(ARGV[i])
  if job and job.status == 'failed' then
    local error_json = redis.call('GET', job_key(job.id) .. ':error')
    if batch.replay_code == '' or (error_json and cjson.decode(error_json).code == batch.replay_code) then
      replay(job, batch.replay_op, batch.replay_charge)
    end
  end
end
redis.call('HSET', batch_key(batch.id), 'cursor', ARGV[2])
if ARGV[3] == '1' then
  drop_timer(batch.id, 'replay')
  batch = read_batch(batch.id)
  if int(batch.left) == 0 then outcome_due(batch) end
else
  keep_timer(batch.id, 'replay')
end
dispatch()
return 1
