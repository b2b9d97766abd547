#!lua flags=allow-oom
-- start_batch(batch): the whole intake is in, so its jobs get turns, from not_before on. Natural key: the status. Answers the status.
local batch = read_batch(ARGV[1])
if not batch then return '' end
if batch.status ~= 'validating' or batch.n_total ~= batch.valid then return batch.status end
drop_timer(batch.id, 'intake')
if int(batch.canary) > 0 then set_batch(batch, { canary_left = math.min(int(batch.canary), int(batch.n_total)) }) end
if int(batch.not_before) > NOW then batch_timer(batch.id, 'open', batch.not_before) end
if batch.finish_by ~= '' then batch_timer(batch.id, 'close', batch.finish_by) end
move_batch(batch, 'started', int(batch.not_before) > NOW and 'not_before' or '')
dispatch()
return redis.call('HGET', batch_key(batch.id), 'status')
