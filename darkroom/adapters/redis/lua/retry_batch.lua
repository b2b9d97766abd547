#!lua flags=allow-oom
-- retry_batch(batch, operation id, error code or '', accept charge 0|1): its failed jobs, or those with that code, are to start a
-- new life, in slices. Natural key: the operation. Answers ok, missing or state.
local batch = read_batch(ARGV[1])
if not batch then return 'missing' end
if batch.replay_op == ARGV[2] then return 'ok' end
if batch.status == 'validating' or batch.status == 'failed' or batch.status == 'cancelling' then return 'state' end
set_batch(batch, { replay_op = ARGV[2], replay_code = ARGV[3], replay_charge = ARGV[4], cursor = 0 })
batch_timer(batch.id, 'replay', NOW)
return 'ok'
