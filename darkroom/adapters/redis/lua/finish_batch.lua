#!lua flags=allow-oom
-- finish_batch(batch): its outcome lies in the bucket, so it ends, and its owner is told. Natural key: the status. Answers the status; a
-- batch whose jobs were replayed meanwhile goes on.
local batch = read_batch(ARGV[1])
if not batch then return '' end
drop_timer(batch.id, 'outcome')
if TERMINAL_BATCH[batch.status] or batch.status == 'validating' or int(batch.left) > 0 then return batch.status end
close_batch(batch, batch.ending == '' and 'completed' or batch.ending, batch.status == 'cancelling' and batch.reason or '')
return batch.status
