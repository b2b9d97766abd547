#!lua flags=allow-oom
-- cancel_batch(batch): nothing more of it is submitted from now on; what is not paid is ended in slices, what runs finishes. An
-- ended batch is left alone. Natural key: the status. Answers ok or missing.
local batch = read_batch(ARGV[1])
if not batch then return 'missing' end
if batch.status ~= 'cancelling' and not TERMINAL_BATCH[batch.status] then
  drop_timer(batch.id, 'intake')
  end_batch(batch, 'cancelled', 'requested')
end
return 'ok'
