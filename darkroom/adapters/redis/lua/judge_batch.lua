#!lua flags=allow-oom
-- judge_batch(batch, good 0|1, valid, invalid, estimate in nano USD, pictures, last line, mistakes JSON): what validating found. A good
-- one goes on to have its jobs made; one that is not ends here, with nothing started. Natural key: the batch, judged once. Answers
-- the status.
local batch = read_batch(ARGV[1])
if not batch then return '' end
if batch.status ~= 'validating' or batch.judged ~= '' then return batch.status end
set_batch(batch, {
  judged = 1, valid = ARGV[3], invalid = ARGV[4], est = ARGV[5], pictures = ARGV[6], last_line = ARGV[7],
})
redis.call('SET', batch_key(batch.id) .. ':mistakes', ARGV[8])
if ARGV[2] ~= '1' then
  drop_timer(batch.id, 'intake')
  close_batch(batch, 'rejected', ARGV[3] == '0' and ARGV[4] == '0' and 'empty' or 'invalid_lines')
end
return batch.status
