#!lua
-- add_batch_jobs(batch, model, up to line, then for each job: id, line, custom id, estimate in USD, canary 0|1, request JSON): one
-- slice of an intake. The jobs are ready in their batch's flow, which has no turn before start_batch. Natural key: batch and line,
-- which the id is made of: what is there is left alone. Answers 0 when the batch is no longer being taken in.
local batch = read_batch(ARGV[1])
if not batch or batch.status ~= 'validating' or batch.judged == '' then return 0 end
local flow = 'dr:ready:bulk' .. ':' .. batch.account .. ':' .. batch.id
local all, queued = 'dr:jobs:' .. batch.account, 'dr:jobs:' .. batch.account .. ':queued'
local added, index, ready, first = 0, {}, {}, {}
for i = 4, #ARGV, 6 do
  local id = ARGV[i]
  local key = job_key(id)
  if redis.call('EXISTS', key) == 0 then
    added = added + 1
    redis.call('HSET', key, 'rev', 1, 'account', batch.account, 'status', 'queued', 'stage', 'waiting_for_slot',
      'place', 'ready', 'lane', 'bulk', 'batch', batch.id, 'model', ARGV[2], 'est', ARGV[i + 3], 'created', NOW, 'line', ARGV[i + 1])
    if ARGV[i + 2] ~= '' then redis.call('HSET', key, 'custom', ARGV[i + 2]) end
    redis.call('SET', key .. ':request', ARGV[i + 5])
    index[#index + 1], index[#index + 2] = NOW, id
    local to = ready
    if ARGV[i + 4] == '1' then
      redis.call('HSET', key, 'canary', '.canary')
      to = first
    end
    to[#to + 1], to[#to + 2] = NOW, id
  end
end
if added > 0 then
  redis.call('ZADD', all, unpack(index))
  redis.call('ZADD', queued, unpack(index))
  if #ready > 0 then redis.call('ZADD', flow, unpack(ready)) end
  if #first > 0 then redis.call('ZADD', flow .. '.canary', unpack(first)) end
  redis.call('HINCRBY', 'dr:counts', 'queued', added)
  usage(batch.account, 'created', added)
  for _, name in ipairs({ 'n_total', 'n_queued', 'left' }) do redis.call('HINCRBY', batch_key(batch.id), name, added) end
end
redis.call('HSET', batch_key(batch.id), 'added', math.max(int(batch.added), tonumber(ARGV[3])))
keep_timer(batch.id, 'intake')
return 1
