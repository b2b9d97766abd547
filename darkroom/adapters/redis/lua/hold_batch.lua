#!lua flags=allow-oom
-- hold_batch(batch, timer's kind): whoever works on this is alive: nobody else begins it for a while. Answers the status, '' when the
-- batch is gone. Repeatable.
keep_timer(ARGV[1], ARGV[2])
return redis.call('HGET', batch_key(ARGV[1]), 'status') or ''
